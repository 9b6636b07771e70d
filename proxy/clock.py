"""The two clocks that the proxy reads, behind one interface so that tests can hold them still."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


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
        self._id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.clock_gettime(self._id)

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)
