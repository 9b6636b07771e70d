"""One worker, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from proxy.workers.channel import Channel, ChannelClosedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.generation import Place
    from proxy.workers.doors import Door
    from proxy.workers.hire import Hire, Process

_ANSWERS_WITHIN: Final = 30.0  # seconds that reading another configuration may take


class Member:
    """A worker process and what it has said. `number` counts from 1."""

    def __init__(self, number: int, process: Process, channel: Channel) -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.serves = False
        self.failure: str | None = None  # why it could not start
        self.report: dict[str, Any] = {}
        self._asked: asyncio.Task[None] | None = None

    @classmethod
    async def hire(cls, number: int, hire: Hire) -> Member:
        """Start one; OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await hire(number, theirs)
            except BaseException:
                ours.close()
                raise
        return cls(number, process, Channel(ours))

    def give(self, doors: Mapping[Place, Door]) -> None:
        """Send it a socket for each address."""
        for at, door in doors.items():
            with door.for_a_worker() as sock:
                self.channel.send("socket", {"place": at}, descriptor=sock.fileno())

    async def prepare(self, settings: str) -> None:
        """Let it get ready for another configuration; ChildProcessError if it cannot.

        One that ends meanwhile is no reason: who follows it will have the one in force then.
        """
        failure = await self._order("prepare", {"settings": settings})
        if failure is not None:
            raise ChildProcessError(f"worker {self.number} {failure}")

    async def enforce(self) -> None:
        """Let it go by what it has prepared; one that does not is to be replaced."""
        if await self._order("enforce", {}) is not None:
            self.process.kill()

    async def _order(self, kind: str, fields: dict[str, Any]) -> str | None:
        """Have something done; return why it was not, None also if the worker has ended."""
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                answer = await self.channel.ask(kind, fields)
        except ChannelClosedError:
            return None
        except TimeoutError:
            return "does not answer"
        failure: str | None = answer["failure"]
        return failure

    def take_report(self, report: dict[str, Any]) -> None:
        """Keep a report, unless a later one has come: counters must never go back."""
        if report["serial"] > self.report.get("serial", 0):
            self.report = report

    def ask_for_report(self) -> asyncio.Task[None]:
        """Have `report` brought up to date; one question is under way at a time."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask_for_report())
        return self._asked

    async def _ask_for_report(self) -> None:
        with contextlib.suppress(ChannelClosedError):
            self.take_report(await self.channel.ask("report"))

    async def end(self, within: float) -> int:
        """Wait for its end, so many seconds at most, then end it; return its exit status."""
        try:
            async with asyncio.timeout(within):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()
        finally:
            self.channel.close()
