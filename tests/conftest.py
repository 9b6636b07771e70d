"""Fixtures that most tests use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from proxy.sandbox import StandIns
from tests.support import ManualClock, Running, proxy_in_front

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A call that blocks the event loop fails the test, if the proxy's own code made it."""
    with blockbuster_ctx("proxy"):
        yield


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def front() -> AsyncIterator[Running]:
    """A proxy in front of stand-ins, as `ekeko sandbox` sets it up."""
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
