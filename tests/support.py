"""What tests share: a clock that only a test moves, and a whole proxy in front of stand-ins."""

from __future__ import annotations

import asyncio
import heapq
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from proxy.app import App
from proxy.cli.sandbox import configuration
from proxy.clock import SystemClock
from proxy.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.clock import Clock
    from proxy.sandbox import StandIns


class ManualClock:
    """Time stands still until `advance`, which wakes those who sleep in the order they would."""

    def __init__(self, *, wall_ms: int = 1_700_000_000_000) -> None:
        self._now = 1000.0
        self._wall_ms = wall_ms
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return self._wall_ms

    async def sleep(self, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), done))
        await done

    @property
    def sleepers(self) -> int:
        """How many are asleep."""
        return sum(not done.done() for *_, done in self._sleepers)

    def jump_wall(self, milliseconds: int) -> None:
        """Set the wall clock forward or back, as an operator or NTP would."""
        self._wall_ms += milliseconds

    async def advance(self, seconds: float) -> None:
        """Let time pass, and give those who wake a chance to run."""
        until = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, done = heapq.heappop(self._sleepers)
            self._move(at)
            if not done.done():
                done.set_result(None)
            await settle()
        self._move(until)
        await settle()

    def _move(self, to: float) -> None:
        self._wall_ms += round((to - self._now) * 1000)
        self._now = to


async def settle(rounds: int = 20) -> None:
    """Let everything that can run now run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@dataclass
class Running:
    """A proxy that runs in front of stand-ins."""

    app: App
    stand_ins: StandIns
    written: list[str] = field(default_factory=list)

    def url(self, route: str) -> str:
        """Where a route listens."""
        url: str = self.app.addresses()["listeners"][route]
        return url

    @property
    def eka(self) -> str:
        return self.url("eka")

    @property
    def eko(self) -> str:
        return self.url("eko")

    @property
    def admin(self) -> str:
        url: str = self.app.addresses()["admin"]
        return url

    def lines(self) -> list[dict[str, Any]]:
        """The access log so far, without the line that says ready."""
        self.app._log.flush()
        lines = [json.loads(line) for line in "".join(self.written).splitlines()]
        return [line for line in lines if "event" not in line]


@asynccontextmanager
async def proxy_in_front(
    stand_ins: StandIns, *changes: dict[str, Any], clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Run a proxy on free ports; `changes` are merged into the sandbox's configuration, deeply."""
    raw = configuration(stand_ins, {"eka": 0, "eko": 0, "admin": 0})
    for change in changes:
        raw = merged(raw, change)
    written: list[str] = []
    app = App(Settings.model_validate(raw), clock=clock or SystemClock(), write=written.append)
    await app.start()
    try:
        yield Running(app, stand_ins, written)
    finally:
        app.stop()
        await app.run()


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings deeply; anything else is replaced, and None removes a key."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
