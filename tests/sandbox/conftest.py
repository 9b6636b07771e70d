"""A clock that stands still, the stand-ins on free ports, and a client."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from proxy.sandbox import StandIns


@dataclass
class FrozenClock:
    seconds: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def stand_ins(clock: FrozenClock) -> AsyncIterator[StandIns]:
    async with StandIns(clock=clock) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
