"""TLS towards callers: a connection from its first byte to the end of its handshake."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Protocol

from proxy import peer
from proxy.secure import SecureTransport

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Entrance(Protocol):
    """The listener, as far as a handshake concerns it."""

    def begin(self, handshake: Handshake) -> bool:
        """Count a connection in, if there is room."""
        ...

    def end(self, handshake: Handshake) -> None:
        """Count it out."""
        ...


class Handshake(SecureTransport):
    """A caller's connection that begins with TLS: it takes a place, and time, before it is served.

    `since` is the loop's time of its first moment, `who` is whose connections are counted together.
    """

    def __init__(
        self,
        entrance: Entrance,
        context: ssl.SSLContext,
        serve: Callable[[], asyncio.Protocol],
    ) -> None:
        super().__init__(serve(), context, None)
        self._entrance = entrance
        self.since = 0.0
        self.who = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or turn the caller away: what it could be told it would not understand."""
        self.since = asyncio.get_running_loop().time()
        self.who = peer.of(transport).who
        if self._entrance.begin(self):
            super().connection_made(transport)
        else:
            transport.close()

    def established(self) -> None:
        """Leave the place to the connection that is served from here."""
        self._entrance.end(self)
        super().established()

    def refused(self, error: OSError) -> None:
        """Leave the place. Anybody can bring this about, so the log tells it at level debug."""
        self._entrance.end(self)
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        logger.debug("a TLS handshake failed: %s", reason)
