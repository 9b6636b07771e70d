"""One request of a caller, and the answer to it, written straight to the caller's connection.

aiohttp's server parses requests and keeps connections; its request and response objects would cost
more than the rest of an exchange together, so answers go to the transport as ready-made bytes.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from proxy.errors import ProxyError, problem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp import HttpVersion, StreamReader
VERSIONS: Final = ((1, 1), (1, 0))  # others are refused, and aiohttp's parser reads them like these
LAST_CHUNK: Final = b"0\r\n\r\n"
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER's, which has TCP end by a reset
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class RequestHead(Protocol):
    """A request's head as aiohttp's parser tells it."""

    @property
    def method(self) -> str: ...  # noqa: D102 - as in RFC 9110
    @property
    def path(self) -> str: ...  # noqa: D102 - the whole request target
    @property
    def version(self) -> HttpVersion: ...  # noqa: D102
    @property
    def raw_headers(self) -> Iterable[tuple[bytes, bytes]]: ...  # noqa: D102
    @property
    def should_close(self) -> bool: ...  # noqa: D102 - after the answer


class CallerTransport(Protocol):
    """The connection by which a request came."""

    transport: asyncio.Transport | None
    peer: str
    proven: tuple[str, ...]

    @property
    def writing_paused(self) -> bool:
        """Tell whether the caller takes no more at the moment."""
        ...

    def drain(self) -> Awaitable[None]:
        """Wait until it does; ConnectionError if it has gone."""
        ...

    def switch(self) -> StreamReader:
        """Return what it brings from here, which is not HTTP; ConnectionError if it cannot be."""
        ...

    def cancel(self) -> None:
        """Raise CancelledError where its request is being served."""
        ...


class Caller:
    """A request as it came, and its answer.

    `target`, `fields` and `content` are the request's, as aiohttp read them. `started` tells that
    the answer's head has left, `chunked` that its body is sent so, `sent` counts body bytes;
    `keep_alive` tells whether the connection goes on behind it. `waiting_since` is the time (of
    `drain`'s `now`) from which the caller has taken nothing more.
    """

    __slots__ = (
        "_until_close",
        "chunked",
        "connection",
        "content",
        "fields",
        "keep_alive",
        "method",
        "sent",
        "started",
        "target",
        "version",
        "waiting_since",
    )

    def __init__(
        self, connection: CallerTransport, message: RequestHead, content: StreamReader
    ) -> None:
        self.connection = connection
        self.content = content
        self.method: str = message.method
        self.target: str = message.path
        self.version: HttpVersion = message.version
        self.fields: Iterable[tuple[bytes, bytes]] = message.raw_headers
        self.keep_alive = not message.should_close and message.version in VERSIONS
        self.waiting_since = math.inf
        self.started = False
        self.sent = 0
        self.chunked = False
        self._until_close = False

    def head(
        self, status: int, reason: bytes, lines: Iterable[bytes], length: int | None
    ) -> list[bytes]:
        """Make an answer's head, of the lines given and those that belong to the connection.

        `length` is None for a body whose length the lines do not have: it is sent chunked, or
        ended by closing the connection.
        """
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason), *lines]
        if length is not None:
            pass
        elif self.version >= (1, 1):
            self.chunked = True
            parts.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self.keep_alive = False
            self._until_close = True
        if not self.keep_alive:
            parts.append(b"Connection: close\r\n")
        elif self.version < (1, 1):
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return parts

    def frame(self, pieces: list[bytes]) -> list[bytes]:
        """Put body pieces into the answer's framing; LAST_CHUNK is to follow the last `chunked`."""
        if self.method == "HEAD":
            return []
        size = sum(map(len, pieces))
        self.sent += size
        if self.chunked and size:
            return [b"%x\r\n" % size, *pieces, b"\r\n"]
        return pieces

    def write(self, data: bytes) -> None:
        """Send; ConnectionResetError if the caller has gone."""
        transport = self.connection.transport
        if transport is None:
            raise ConnectionResetError("the caller has gone")
        self.started = True
        transport.write(data)

    async def drain(self, now: Callable[[], float]) -> None:
        """Wait until the caller takes more, after `connection.writing_paused`."""
        self.waiting_since = now()
        await self.connection.drain()
        self.waiting_since = math.inf

    def answer(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Send a whole answer of the proxy's own."""
        reason = _PHRASES[status]
        if body:
            lines = [*lines, b"Content-Length: %d\r\n" % len(body)]
        head = self.head(status, reason, lines, len(body))
        self.write(b"".join(head + self.frame([body])))

    def answer_error(
        self, error: ProxyError, lines: Iterable[bytes], *, route: str, request_id: str
    ) -> None:
        """Send a problem answer (RFC 9457); `lines` are more of its fields."""
        own = [
            b"Content-Type: application/problem+json\r\n",
            b"X-Ekeko-Error: %b\r\n" % error.code.encode(),
            b"Cache-Control: no-store\r\n",
            *lines,
        ]
        if error.retry_after is not None:
            own.append(b"Retry-After: %d\r\n" % max(1, round(error.retry_after)))
        self.answer(error.status, own, problem(error, route=route, request_id=request_id))

    def break_off(self) -> None:
        """Break the connection, so that nobody takes a part of an answer for all of it."""
        self.keep_alive = False
        transport = self.connection.transport
        if transport is None:
            return
        if self._until_close:
            reset(transport)
        else:
            transport.abort()

    def invite_body(self) -> None:
        """Answer `Expect: 100-continue` (RFC 9110, 10.1.1): policy has agreed."""
        transport = self.connection.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def reset(transport: asyncio.Transport) -> None:
    """End a connection in such a way that its end cannot be taken for that of an answer."""
    with contextlib.suppress(OSError):  # it has ended already
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
