"""The caller's side of an exchange: answers written straight to its connection.

aiohttp's server parses requests and keeps connections; its response objects would cost more than
the rest of the exchange together, so a ready-made block of bytes goes to the transport instead.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proxy.errors import ProxyError, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class _Sent(web.StreamResponse):
    """Tells aiohttp that an answer has left, and whether its connection goes on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._goes_on = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._goes_on

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing: it has been sent."""

    async def write_eof(self, data: Any = b"") -> None:
        """Send nothing: it has been sent."""


KEEP_ALIVE: Final = _Sent(keep_alive=True)
CLOSE: Final = _Sent(keep_alive=False)


class Caller:
    """Writes one answer. `started` tells that its head has left, `sent` counts body bytes.

    `waiting_since` is the time (of `now`) from which the caller has taken nothing more.
    """

    __slots__ = (
        "_chunked",
        "_now",
        "_request",
        "_writes_body",
        "keep_alive",
        "sent",
        "started",
        "waiting_since",
    )

    def __init__(
        self, request: web.BaseRequest, now: Callable[[], float], *, keep_alive: bool
    ) -> None:
        self._request = request
        self._now = now
        self.waiting_since = math.inf
        self._chunked = False
        self._writes_body = request.method != "HEAD"
        self.keep_alive = keep_alive
        self.started = False
        self.sent = 0

    @property
    def outcome(self) -> web.StreamResponse:
        """What to return to aiohttp."""
        return KEEP_ALIVE if self.keep_alive else CLOSE

    def head(
        self,
        status: int,
        reason: bytes,
        lines: Iterable[bytes],
        *,
        framed: bool,
    ) -> bytes:
        """Make an answer's head, of the lines given and those that belong to the connection.

        `framed` tells that the answer has no body or that the lines have its length; else it is
        sent chunked, or ended by closing the connection.
        """
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason), *lines]
        if framed:
            pass
        elif self._request.version >= (1, 1):
            self._chunked = True
            parts.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"Connection: close\r\n")
        elif self._request.version < (1, 1):
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def frame(self, pieces: Iterable[bytes], *, last: bool) -> bytes:
        """Put body pieces into the answer's framing."""
        if not self._writes_body:
            return b""
        data = b"".join(pieces)
        self.sent += len(data)
        if not self._chunked:
            return data
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return framed + b"0\r\n\r\n" if last else framed

    def write(self, data: bytes) -> None:
        """Send; ConnectionResetError if the caller has gone."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the caller has gone")
        self.started = True
        transport.write(data)

    async def drain(self) -> None:
        """Wait while the caller takes no more."""
        if self._request.protocol.writing_paused:
            self.waiting_since = self._now()
            await self._request.writer.drain()
            self.waiting_since = math.inf

    def answer(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Send a whole answer of the proxy's own."""
        reason = _PHRASES[status]
        if body:
            lines = [*lines, b"Content-Length: %d\r\n" % len(body)]
        head = self.head(status, reason, lines, framed=True)
        self.write(head + self.frame([body], last=True))

    def answer_error(
        self, error: ProxyError, *, route: str, request_id: str, lines: Iterable[bytes] = ()
    ) -> None:
        """Send a problem answer (RFC 9457)."""
        own = [
            b"Content-Type: application/problem+json\r\n",
            b"X-Ekeko-Error: %b\r\n" % error.code.encode(),
            b"X-Request-Id: %b\r\n" % request_id.encode(),
            b"Cache-Control: no-store\r\n",
        ]
        if error.retry_after is not None:
            own.append(b"Retry-After: %d\r\n" % max(1, round(error.retry_after)))
        self.answer(
            error.status,
            [*own, *lines],
            problem(error, route=route, request_id=request_id),
        )

    def break_off(self) -> None:
        """Break the connection, so that nobody takes a part of an answer for all of it."""
        self.keep_alive = False
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def invite_body(self) -> None:
        """Answer `Expect: 100-continue` (RFC 9110, 10.1.1): policy has agreed."""
        transport = self._request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
