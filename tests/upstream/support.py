"""What tests of the upstream leg share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from proxy.addresses import parse_origin
from proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.upstream.codec import Head
    from proxy.upstream.connection import Connection


async def head(connection: Connection) -> Head:
    """Wait for an answer's head, as `Sending` does."""
    while connection.reader.head is None:
        await connection.news()
    return connection.reader.head


class Transport(asyncio.Transport):
    """A transport without a socket, which notes what is done to it.

    It ends as asyncio's do: its protocol hears of it when the loop comes round.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.events: list[str] = []
        self.aborted = self.closing = self.lost = False
        self.reading = True
        self._unread: list[bytes] = []
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        self.written += data

    def feed(self, data: bytes) -> None:
        """Let bytes come from the peer; they wait while reading is paused."""
        if not self.closing and self.reading:
            self.protocol.data_received(data)
        else:
            self._unread.append(data)

    def pause_reading(self) -> None:
        self.events.append("pause")
        self.reading = False

    def resume_reading(self) -> None:
        self.events.append("resume")
        self.reading = True
        unread, self._unread = self._unread, []
        for data in unread:
            asyncio.get_running_loop().call_soon(self.feed, data)

    def abort(self) -> None:
        self.aborted = True
        self.end(None)

    def close(self) -> None:
        self.events.append("close")
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """End, as when the peer resets the connection: the protocol does not know before."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._lose, error)

    def eof(self) -> None:
        """Let the peer end the stream in order."""
        if not self.closing:
            self.protocol.eof_received()
            self.end(None)

    def _lose(self, error: Exception | None) -> None:
        self.lost = True
        self.protocol.connection_lost(error)


class Wires:
    """Stands in for a dialer: a connection is there when a test says so, and has no socket."""

    origin = parse_origin("http://127.0.0.1")
    server_name = None

    def __init__(self) -> None:
        self.dialling: list[asyncio.Future[None]] = []
        self.all: list[Transport] = []
        self.stillborn = False  # the upstream accepts, and closes at once

    async def open(self, factory: Callable[[], Connection], *, within: float) -> Connection:
        del within
        ready = asyncio.get_running_loop().create_future()
        self.dialling.append(ready)
        try:
            await ready
        finally:
            self.dialling.remove(ready)
        connection = factory()
        transport = Transport(connection)
        self.all.append(transport)
        if self.stillborn:
            transport.eof()
        return connection

    def answer(self, *, error: bool = False, at: int = 0) -> None:
        """Let a dial succeed, or fail."""
        ready = self.dialling[at]
        if ready.done():
            return
        if error:
            ready.set_exception(ProxyError("upstream_unreachable", "No connection."))
        else:
            ready.set_result(None)

    def of(self, connection: Connection) -> Transport:
        """Return a connection's transport."""
        (found,) = [each for each in self.all if each.protocol is connection]
        return found

    @property
    def open_ones(self) -> list[Transport]:
        return [each for each in self.all if not each.lost]
