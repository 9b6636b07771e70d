"""TLS on the upstream leg."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy import secure

if TYPE_CHECKING:
    import ssl


class SecureTransport(secure.SecureTransport):
    """The transport of a connection to an upstream.

    `made` ends once the handshake has: the protocol then has this transport. It fails with the
    OSError (an ssl.SSLError, or what ended the connection) that kept it from ending.
    """

    def __init__(
        self, protocol: asyncio.Protocol, context: ssl.SSLContext, server_name: str
    ) -> None:
        super().__init__(protocol, context, server_name)
        self.made: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def established(self) -> None:
        """Go on."""
        super().established()
        if not self.made.done():
            self.made.set_result(None)

    def refused(self, error: OSError) -> None:
        """Tell who waits."""
        if not self.made.done():
            self.made.set_exception(error)
