"""Connections that switch protocols (RFC 9110, 7.8), such as to WebSocket: two pumps.

The request that asks for it goes through the same policy as any, and carries the credential. Only
when the upstream answers 101 does the connection stop being HTTP; any other answer is an ordinary
one. From there bytes pass both ways as they come, each no faster than the other side takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Final

from proxy.errors import ProxyError

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from proxy.body import RequestBody
    from proxy.caller import Caller
    from proxy.route import Route
    from proxy.send import Reply

SWITCHING_PROTOCOLS: Final = 101
_PROTOCOL = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")
# Other ways to speak HTTP: what is said in them would pass by every policy.
_NEVER: Final = frozenset({b"h2c", b"http", b"tls"})


def protocol_asked_for(caller: Caller, read: dict[str, bytes], body: RequestBody) -> bytes | None:
    """Return the one protocol that a request asks to switch to, None if it stays HTTP.

    An Upgrade that cannot be followed is left out, as RFC 9110, 7.8 allows: the request goes on as
    an ordinary one.
    """
    asked = read["upgrade"]
    found = _PROTOCOL.fullmatch(asked)
    options = {option.strip().lower() for option in read.get("connection", b"").split(b",")}
    if (
        found is None
        or found[1].lower() in _NEVER
        or b"upgrade" not in options
        or caller.version < (1, 1)
        or body.length != 0
    ):
        return None
    return asked


def switch_lines(protocol: bytes) -> bytes:
    """Return the fields that ask the upstream, or tell the caller, of the switch."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol


class Tunnel:
    """What passes after a 101. `received` counts the caller's bytes."""

    def __init__(self, route: Route, caller: Caller, reply: Reply) -> None:
        assert reply.connection is not None  # noqa: S101 - it has not come to its end
        self._connection = reply.connection
        self._caller = caller
        self._now = route.pool.now
        self._idle = route.timeout.idle
        self.received = 0

    async def run(self, head: bytes, pieces: list[bytes]) -> None:
        """Answer with a head, then pass both ways until one side ends; ends the connections.

        ProxyError: `upstream_timeout` where nothing has passed for the route's `timeout.idle`,
        `upstream_closed` where the upstream's side broke off.
        """
        caller, connection = self._caller, self._connection
        caller.keep_alive = False
        content = caller.connection.switch()
        caller.write(head)
        upwards = asyncio.create_task(self._up(content))
        try:
            await self._down(pieces)
        except asyncio.CancelledError:
            # The caller has gone: what it said last may be its goodbye.
            with contextlib.suppress(ProxyError, RuntimeError):
                connection.write(content.read_nowait())
            connection.close()
            raise
        finally:
            upwards.cancel()

    async def _up(self, content: StreamReader) -> None:
        connection = self._connection
        # What fails here, fails below as well, where it is told.
        with contextlib.suppress(ProxyError, ConnectionError):
            while piece := await content.readany():
                self.received += len(piece)
                connection.write(piece)
                await connection.drain(self._idle)
                connection.deadline = self._now() + self._idle

    async def _down(self, pieces: list[bytes]) -> None:
        caller, connection, reader = self._caller, self._connection, self._connection.reader
        while True:
            if pieces:
                data = b"".join(pieces)
                caller.sent += len(data)
                caller.write(data)
            if caller.connection.writing_paused:
                await caller.drain(self._now)
            if reader.complete and not reader.size:
                return
            await connection.more(self._idle)
            pieces = connection.take()
