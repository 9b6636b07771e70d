"""What tests of the upstream leg share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.upstream.codec import Head
    from proxy.upstream.connection import Connection


async def head(connection: Connection) -> Head:
    """Wait for an answer's head, as `Sending` does."""
    while connection.reader.head is None:
        await connection.news()
    return connection.reader.head
