"""One connection to an upstream, and the exchange that runs on it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, cast

from proxy.errors import ProxyError
from proxy.upstream.codec import ProtocolError, ResponseReader

if TYPE_CHECKING:
    from collections.abc import Callable

# Body bytes held for a slow caller before the upstream is made to wait.
HIGH_WATER: Final = 64 * 1024
_GOODBYE: Final = 10.0  # seconds


class Connection(asyncio.Protocol):
    """Sends requests and reads answers, one exchange at a time.

    An exchange is `begin`, `write`s, `news` until `reader.head` has come, then `take` and `more`
    until `reader.complete`.
    Whatever fails is a ProxyError, raised to whoever waits; `fail` is the only way to fail. Once
    `deadline` (a time of `now`) has passed, `is_late` says so.
    """

    __slots__ = (
        "_drain_deadline",
        "_drained",
        "_ending",
        "_error",
        "_loop",
        "_lost",
        "_now",
        "_paused_reading",
        "_paused_writing",
        "_transport",
        "_waiter",
        "active",
        "closed",
        "deadline",
        "idle_since",
        "reader",
        "sent",
        "wrote_all",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._now = now
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._error: ProxyError | None = None
        self._paused_reading = False
        self._paused_writing = False
        self.reader = ResponseReader()
        self.active = False
        self.closed = False
        self._ending = False
        self.sent = False
        self.wrote_all = True
        self.idle_since = 0.0
        self.deadline = self._drain_deadline = math.inf

    # The exchange.

    def begin(self, method: str, upgrade: bytes | None = None) -> None:
        """Start an exchange, by its request's method and the protocol that it asks for."""
        self.active = True
        self.sent = False
        self.wrote_all = False
        self._error = None
        self.reader.expect(method, upgrade)

    def write(self, data: bytes) -> None:
        """Send a part of the request."""
        if self._transport is None or self._error is not None:
            error = self._error or self._closed_early()
            error.sent = self.sent
            raise error
        self.sent = True
        self._transport.write(data)

    async def drain(self, within: float) -> None:
        """Wait until the upstream has taken enough of what was written."""
        if self._paused_writing and self._transport is not None:
            self._drained = self._loop.create_future()
            self._drain_deadline = self._now() + within
            await self._drained
            self._drain_deadline = math.inf
        if self._error is not None:
            raise self._error

    def news(self) -> asyncio.Future[None]:
        """Return what ends when a part of the answer has come; raise what has gone wrong.

        Not a coroutine: each exchange waits here, and a coroutine costs more than the waiting.
        """
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        return waiter

    async def more(self, within: float) -> None:
        """Wait for more of the answer's body, or its end."""
        while not self.reader.has_news:
            self.deadline = self._now() + within
            await self.news()
            self.deadline = math.inf

    def take(self) -> list[bytes]:
        """Hand over the body pieces that have come, and let more come."""
        pieces = self.reader.take()
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()
        return pieces

    def end(self) -> bool:
        """End the exchange; True if the connection can serve another one."""
        self.active = False
        self.deadline = self._drain_deadline = math.inf
        usable = (
            self.reader.complete
            and self.reader.keep_alive
            and self.wrote_all
            and self._error is None
            and not self.closed
        )
        if usable:
            if self._paused_reading:
                self.take()  # what nobody took must not keep the next answer from being read
        elif self._ending:
            self.deadline = self._now() + _GOODBYE
        else:
            self.abort()
        return usable

    def close(self) -> None:
        """Close the connection once what was written has been sent, within some seconds."""
        self.closed = self._ending = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Give the connection up at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def is_late(self, now: float) -> bool:
        """Tell whether a deadline has passed; `now` is the clock's."""
        return now > self.deadline or now > self._drain_deadline

    def fail(self, error: ProxyError) -> None:
        """End the exchange with an error, and the connection with it."""
        error.sent = self.sent
        if self._error is None:
            self._error = error
        self._wake()
        self.abort()

    def _wake(self) -> None:
        for waiter in (self._waiter, self._drained):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _closed_early(self) -> ProxyError:
        if self.reader.head is not None:
            return ProxyError(
                "upstream_closed", "The upstream closed the connection within its answer."
            )
        return ProxyError("upstream_closed", "The upstream closed the connection before answering.")

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read what came; anything that comes to an idle connection ends it."""
        if not self.active:
            self.abort()
            return
        reader = self.reader
        try:
            reader.feed(data)
        except ProtocolError as error:
            self.fail(ProxyError("upstream_protocol_error", f"The upstream's answer: {error}."))
            return
        if reader.size > HIGH_WATER and not self._paused_reading and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()
        if reader.head is not None:
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> None:
        """Let the transport close; until it has, nobody may take this for an idle connection."""
        if not self.active or self.reader.complete:
            self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and whoever keeps the connection."""
        self.closed = True
        self._transport = None
        broken = exc is not None or not self.reader.eof()
        if self.active and broken and not self.reader.complete:
            self.fail(self._closed_early())
        self._wake()
        self._lost(self)

    def pause_writing(self) -> None:
        """Note that the upstream takes no more."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Wake whoever waits in `drain`."""
        self._paused_writing = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
