"""Cancelling a coroutine at its first wait, at its second, and so on, until none is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

# Moments to cancel at: as a wait begins, as it begins and at each one that follows, and when what
# was waited for has come but the task has not run yet.
MOMENTS = ["before", "always", "after"]


class Cancelled:
    """Awaits a coroutine, and cancels its task at its `at`-th wait; `waits` counts them."""

    def __init__(self, running: Coroutine[Any, Any, Any], at: int, moment: str) -> None:
        self._running = running
        self._at = at
        self._moment = moment
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task, error = asyncio.current_task(), None
        assert task is not None
        while True:
            try:
                waiting = self._step(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            self._cancel(task, waiting)
            error = None
            try:
                yield waiting
            except BaseException as thrown:  # noqa: BLE001 - it goes on to the coroutine
                error = thrown

    def _cancel(self, task: asyncio.Task[Any], waiting: Any) -> None:
        if self._moment == "after" and isinstance(waiting, asyncio.Future):
            if self.waits == self._at:
                # It is called before the task's own callback: the task adds that only now.
                waiting.add_done_callback(lambda _: task.cancel())
        elif self.waits == self._at or (self._moment == "always" and self.waits > self._at):
            task.cancel()  # takes effect on what is waited for, as soon as that is known

    def _step(self, error: BaseException | None) -> Any:
        return self._running.send(None) if error is None else self._running.throw(error)
