"""What a process does beside serving: once, or again and again, until it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from proxy.clock import Clock

logger = logging.getLogger(__name__)


class Chores:
    """The tasks that run in the background of a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, chore: Coroutine[Any, Any, None]) -> None:
        """Run a task for as long as the process runs."""
        self._tasks.append(asyncio.create_task(chore))

    def repeat(self, chore: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Do something now, and again so many seconds after it was done."""
        self.start(self._repeat(chore, seconds))

    async def close(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, chore: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await chore()
            except Exception:  # one failure must not be the end of it
                logger.exception("a chore failed")
            await self._clock.sleep(seconds)
