"""The workers that there are: started together, listened to, and replaced when they end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from proxy.workers import lending
from proxy.workers.member import Member

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from proxy.clock import Clock
    from proxy.workers.channel import Message
    from proxy.workers.hire import Hire

    Brief = Callable[[Member], Awaitable[None]]
    Lend = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    Leave = Callable[[Member], None]

logger = logging.getLogger(__name__)

# Seconds.
_GRACE: Final = 3.0  # for a worker to end after `limits.drain`
_BACK_OFF: Final = (0.5, 30.0)  # between a worker's early ends
_LONG_ENOUGH: Final = 10.0  # a worker that has served so long is replaced at once


class Crew:
    """Keeps workers, until `drain`.

    `brief` tells a new one what it has to know, `lend` answers its questions for tokens, and
    `leave` hears of each that has ended. `drain_within` is `limits.drain`.
    """

    def __init__(self, clock: Clock, hire: Hire, *, brief: Brief, lend: Lend, leave: Leave) -> None:
        self._clock = clock
        self._hire = hire
        self._brief = brief
        self._lend = lend
        self._leave = leave
        self.members: dict[int, Member] = {}
        self.drain_within = 0.0
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._lending: set[asyncio.Task[None]] = set()

    @property
    def stopping(self) -> bool:
        """Whether it drains."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Start no worker any more."""
        self._stopping.set()

    async def stopped(self) -> None:
        """Wait for `stop`."""
        await self._stopping.wait()

    async def start(self, size: int) -> None:
        """Start so many at once; ChildProcessError if one does not come to serve."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(size)]
        self._keepers = [
            asyncio.create_task(self._keep(number, first)) for number, first in enumerate(ready, 1)
        ]
        await self._unless_stopping(all_of(ready))

    async def drain(self) -> None:
        """Let all finish what is in flight, and end those that do not in time."""
        self.tell("drain")
        await asyncio.wait(self._keepers, timeout=self.drain_within + _GRACE)
        for number in self.members:
            logger.warning("worker %d did not end in time, and is killed", number)

    def tell(self, kind: str, fields: dict[str, Any] | None = None) -> None:
        """Send all of them a message."""
        for member in self.members.values():
            member.channel.send(kind, fields)

    async def close(self) -> None:
        """End those that are left."""
        for task in [*self._keepers, *self._lending]:
            task.cancel()
        await asyncio.gather(*self._keepers, *self._lending, return_exceptions=True)
        while self.members:
            await self.members.popitem()[1].end(0)

    async def _keep(self, number: int, first: asyncio.Future[None]) -> None:
        """See to it that there is a worker of this number, until the end.

        `first` tells of the first one. That comes to nothing if it fails; a later one is tried
        again, ever more rarely.
        """
        early_ends = 0
        while not self._stopping.is_set():
            began = self._clock.now()
            why = await self._have_one(number, first)
            if not first.done():
                first.set_exception(ChildProcessError(f"worker {number} {why}"))
            if self.stopping or first.exception() is not None:
                return
            early = self._clock.now() - began < _LONG_ENOUGH
            early_ends = early_ends + 1 if early else 0
            least, most = _BACK_OFF
            wait = min(most, least * 2.0 ** min(early_ends - 1, 16)) if early_ends else 0.0
            logger.error("worker %d %s; the next one starts in %.1f s", number, why, wait)
            await self._unless_stopping(self._clock.sleep(wait))

    async def _have_one(self, number: int, first: asyncio.Future[None]) -> str:
        """Start a worker and do what it asks until it ends; return how it ended."""
        try:
            member = await Member.hire(number, self._hire)
        except OSError as error:
            return f"could not be started: {error.strerror}"
        try:
            await self._brief(member)
            async for message in member.channel.messages():
                self._hear(member, message)
                if member.serves and not first.done():
                    first.set_result(None)
        except Exception:
            logger.exception("worker %d cannot be dealt with", number)
            member.process.kill()
        member.serves = False
        # Whoever comes next has the same milliseconds, so this one must be gone before.
        status = await member.end(self.drain_within + _GRACE)
        self._leave(member)
        self.members.pop(number, None)
        return member.failure or f"ended with status {status} (process {member.process.pid})"

    def _hear(self, member: Member, message: Message) -> None:
        match message.kind:
            case "ready":
                member.serves = True
            case "failed":
                member.failure = f"could not start: {message.fields['why']}"
            case "report":
                member.take_report(message.fields)
            case lending.QUESTION:
                task = asyncio.create_task(self._answer(member, message))
                self._lending.add(task)
                task.add_done_callback(self._lending.discard)

    async def _answer(self, member: Member, question: Message) -> None:
        member.channel.answer(question, await self._lend(question.fields))

    async def _unless_stopping(self, what: Awaitable[Any]) -> None:
        """Wait for something, or for `stop`."""
        waiting = asyncio.ensure_future(what)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            for task in (waiting, stopping):
                task.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)


async def all_of(awaitables: Iterable[Awaitable[None]]) -> None:
    """Wait for all, whatever becomes of each; then raise what the first that failed did."""
    for result in await asyncio.gather(*awaitables, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
