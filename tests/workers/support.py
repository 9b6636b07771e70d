"""Workers that run as tasks of the test's own event loop, under a real supervisor."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from proxy import config
from proxy.cli.sandbox import configuration
from proxy.clock import SystemClock
from proxy.config.settings import Settings
from proxy.workers.channel import Channel
from proxy.workers.supervisor import Supervisor
from proxy.workers.worker import Outside, Worker
from tests.support import ManualClock, merged

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from proxy.app import App
    from proxy.clock import Clock
    from proxy.sandbox import StandIns

_pids = count(1)
WRONG = 1  # the exit status of a worker that could not start


class Task:
    """A worker that runs as a task, seen as a process."""

    def __init__(self, number: int, channel: Channel, clock: Clock) -> None:
        self.pid = next(_pids)
        self.number = number
        self.lines: list[str] = []
        self.may_write = False
        self.level = ""
        self.worker = Worker(number, channel, clock=clock, outside=self._outside())
        self._channel = channel
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run())

    def _outside(self) -> Outside:
        def release() -> None:
            self.may_write = True

        def set_level(level: str) -> None:
            self.level = level

        return Outside(self.lines.append, release, set_level)

    async def _run(self) -> None:
        status = await self.worker.run()
        if not self._status.done():
            self._status.set_result(status)

    @property
    def app(self) -> App:
        """Look at it from inside."""
        assert self.worker._app is not None
        return self.worker._app

    async def wait(self) -> int:
        return await asyncio.shield(self._status)

    def kill(self) -> None:
        """End it as `kill -9` would: what it has open is closed, and nobody is told."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.worker._close_sockets()
        await self.worker._chores.close()
        if self.worker._serving is not None:
            self.worker._serving.cancel()
        if self.worker._app is not None:
            await self.worker._app._close()
        self._channel.close()
        if not self._status.done():
            self._status.set_result(-9)


@dataclass
class Company:
    """A supervisor and its workers."""

    raw: dict[str, Any]
    clock: Clock
    tasks: list[Task] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    refuses: bool = False  # no process can be started

    def __post_init__(self) -> None:
        self.supervisor: Supervisor

    async def hire(self, number: int, channel: socket.socket) -> Task:
        if self.refuses:
            raise OSError(11, "no more processes")
        self.tasks.append(Task(number, Channel(channel.dup()), self.clock))
        return self.tasks[-1]

    async def announce(self, line: str) -> None:
        self.said.append(line)

    def now(self, number: int) -> Task:
        """Return the worker that has a number at present."""
        process = self.supervisor.members[number].process
        assert isinstance(process, Task)
        return process

    @property
    def apps(self) -> list[App]:
        return [self.now(number).app for number in sorted(self.supervisor.members)]

    def url(self, route: str) -> str:
        url: str = self.supervisor.addresses()["listeners"][route]
        return url

    @property
    def admin(self) -> str:
        url: str = self.supervisor.addresses()["admin"]
        return url

    async def reload(self, *changes: dict[str, Any]) -> None:
        raw = self.raw
        for change in changes:
            raw = merged(raw, change)
        await self.supervisor.reload(await settings_of(raw))
        self.raw = raw

    def log(self) -> list[dict[str, Any]]:
        """Read the access log of all workers that there ever were."""
        for task in self.tasks:
            if task.worker._app is not None:
                task.app._log.flush()
        return [
            json.loads(line) for task in self.tasks for line in "".join(task.lines).splitlines()
        ]


async def settings_of(raw: dict[str, Any]) -> Settings:
    settings = Settings.model_validate(raw)
    await asyncio.to_thread(config.resolve, settings)
    return settings


async def found(raw: dict[str, Any], clock: Clock | None = None) -> Company:
    """Make a company that has not started."""
    company = Company(raw, clock or SystemClock())
    company.supervisor = Supervisor(
        await settings_of(raw),
        clock=company.clock,
        announce=company.announce,
        hire=company.hire,
    )
    return company


@asynccontextmanager
async def running(raw: dict[str, Any], clock: Clock | None = None) -> AsyncIterator[Company]:
    """Run a company until the end of a test, in order."""
    company = await found(raw, clock)
    await company.supervisor.start()
    try:
        yield company
    finally:
        company.supervisor.stop()
        ending = asyncio.create_task(company.supervisor.run())
        while isinstance(clock, ManualClock) and not ending.done():
            await clock.advance(0.02)
            await asyncio.sleep(0)
        await ending


def plain(upstream: str, *changes: dict[str, Any], workers: int = 3) -> dict[str, Any]:
    """Write a configuration with one route that attaches nothing."""
    raw: dict[str, Any] = {
        "routes": {"plain": {"listen": "127.0.0.1:0", "upstream": upstream, "credential": "none"}},
        "admin": {"listen": "127.0.0.1:0"},
        "workers": workers,
    }
    for change in changes:
        raw = merged(raw, change)
    return raw


def vendors(stand_ins: StandIns, *changes: dict[str, Any], workers: int = 3) -> dict[str, Any]:
    """Write a configuration with both vendors' routes."""
    raw = configuration(stand_ins, {"eka": 0, "eko": 0, "admin": 0}) | {"workers": workers}
    for change in changes:
        raw = merged(raw, change)
    return raw
