"""The two clocks that the proxy reads, behind one interface so that tests can hold them still."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Protocol):
    """Time as the proxy knows it."""

    def now(self) -> float:
        """Seconds on a clock that never jumps and counts suspension: for expiry and durations."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, as the vendors see them: for stamps and logs."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, as `asyncio.sleep`."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME, where there is one, goes on while a laptop sleeps."""

    def __init__(self) -> None:
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        # Seconds since an arbitrary start. Read several times a request: no method around it.
        self.now: Callable[[], float] = partial(time.clock_gettime, clock)

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)
