"""The connections of one route: reused while fresh, bounded, shared out in order of asking.

Invariants:
- A connection is in use by one exchange, or idle, or gone; `_open` counts those in use or idle
  or being opened, and never exceeds `limit`.
- Whoever waits is served first come, first served: by a connection that is given back, or by the
  place of one that is gone.
- A waiter that leaves passes on what it was given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from proxy.errors import ProxyError
from proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.upstream.dial import Dialer

# Seconds that an idle connection is kept: well below the 60 s of common load balancers.
IDLE_AT_MOST: Final = 15.0
# What cannot be sent again must not meet a connection that is about to close.
IDLE_AT_MOST_UNSAFE: Final = 4.0
CONNECTIONS_AT_MOST: Final = 1024


class Pool:
    """Connections to one route's upstream."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        now: Callable[[], float],
        connect_timeout: float,
        limit: int = CONNECTIONS_AT_MOST,
    ) -> None:
        self.dialer: Final = dialer
        self.now = now
        self._connect_timeout = connect_timeout
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<Pool {len(self._all) - len(self._idle)} active, {len(self._idle)} idle, "
            f"{self._opening} opening, {len(self._waiters)} waiting>"
        )

    def counts(self) -> dict[str, int]:
        """Count connections by state, for metrics."""
        return {
            "active": len(self._all) - len(self._idle),
            "idle": len(self._idle),
            "opening": self._opening,
        }

    def take(self, since: float) -> Connection | None:
        """Return the connection that was used last, if that was no earlier than `since`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.idle_since < since:
                idle.append(connection)
                return None
            if not connection.closed:
                return connection
        return None

    async def acquire(self) -> Connection:
        """Return a connection that has not been idle: a new one, or the next that is given back.

        ProxyError: `upstream_unreachable`, or `overloaded` if all are in use for too long.
        """
        again = False
        while len(self._all) + self._opening >= self._limit and not self._evict():
            connection = await self._wait(again=again)
            if connection is None:
                return await self._dial()
            if not connection.closed:
                return connection
            # Lost on its way here. Its place may be free already: nobody would hand that to us.
            again = True
        self._opening += 1
        return await self._dial()

    def release(self, connection: Connection) -> None:
        """Take a connection back when its exchange has ended, whichever way."""
        if not connection.end():
            return  # it has seen to its own end
        if self._closed:
            connection.abort()
        else:
            self._keep(connection)

    def sweep(self, now: float) -> None:
        """Close what has been idle too long, fail what is past its deadline.

        `now` is the clock's; called several times a second.
        """
        while self._idle and now - self._idle[0].idle_since > IDLE_AT_MOST:
            self._idle.popleft().abort()
        for connection in list(self._all):
            if connection.is_late(now):
                connection.fail(
                    ProxyError("upstream_timeout", "The upstream did not answer in time.")
                )

    def close(self) -> None:
        """Close idle connections now, and others as they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def abort(self) -> None:
        """Close every connection now, whatever runs on it."""
        self.close()
        for connection in list(self._all):
            connection.abort()

    def _evict(self) -> bool:
        """Make room by closing the oldest idle connection, if there is one."""
        if not self._idle:
            return False
        connection = self._idle.popleft()
        self._all.discard(connection)
        connection.abort()
        return True

    async def _dial(self) -> Connection:
        """Open a connection in a place that is already counted in `_opening`."""
        try:
            connection = await self.dialer.open(
                lambda: Connection(self._loop, self.now, self._lost), within=self._connect_timeout
            )
        except BaseException:
            self._opening -= 1
            self._vacate()
            raise
        self._opening -= 1
        if connection.closed:
            self._vacate()
        else:
            self._all.add(connection)
        return connection

    async def _wait(self, *, again: bool) -> Connection | None:
        """Wait in the queue; None stands for a place, already counted, to open one in.

        Whoever waits `again` has had its turn, and waits in front.
        """
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        if again:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            if isinstance(error, TimeoutError):
                raise ProxyError(
                    "overloaded",
                    f"All {self._limit} connections of this route are in use.",
                    retry_after=1,
                ) from None
            raise

    def _pass_on(self, given: Connection | None) -> None:
        """Return what a waiter was given but can no longer use."""
        if given is None:
            self._opening -= 1
            self._vacate()
        elif given.closed or self._closed:
            given.abort()  # its place is, or will be, passed on by `_lost`
        else:
            self._keep(given)

    def _keep(self, connection: Connection) -> None:
        """Give a usable connection to the first in the queue, or hold it idle."""
        waiter = self._next_waiter() if self._waiters else None
        if waiter is not None:
            waiter.set_result(connection)
        else:
            connection.idle_since = self.now()
            self._idle.append(connection)

    def _vacate(self) -> None:
        """Give a place that has become free to the first in the queue."""
        waiter = self._next_waiter()
        if waiter is not None:
            self._opening += 1
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _lost(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._vacate()
