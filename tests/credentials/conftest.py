"""Stand-ins whose clock the test moves, and what credentials work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.credentials import Tools
from proxy.credentials.login import LoginClient
from proxy.credentials.stamps import StampStore
from proxy.sandbox import EkaStandIn, StandIns
from proxy.tokens import TokenStore
from tests.credentials.support import Fetches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import ManualClock


@pytest.fixture
async def stand_ins(manual_clock: ManualClock) -> AsyncIterator[StandIns]:
    async with StandIns(clock=lambda: manual_clock.wall_ms() / 1000) as running:
        yield running


@pytest.fixture
def vendor(stand_ins: StandIns) -> EkaStandIn:
    return stand_ins.eka


@pytest.fixture
async def login_client(stand_ins: StandIns) -> AsyncIterator[LoginClient]:
    client = LoginClient(stand_ins.eka_url)
    yield client
    await client.close()


@pytest.fixture
def fetches() -> Fetches:
    return Fetches()


@pytest.fixture
def tools(manual_clock: ManualClock, fetches: Fetches) -> Tools:
    return Tools(manual_clock, TokenStore(manual_clock), StampStore(manual_clock), fetches)
