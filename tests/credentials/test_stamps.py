"""Stamps that Eko accepts: never twice the same, never far from the time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.credentials.stamps import AHEAD_AT_MOST, ClockStamps, Stamps, StampStore
from tests.support import ManualClock, settle

TEN_MINUTES = 600_000


async def take(stamps: Stamps, count: int) -> list[int]:
    return [await stamps.next() for _ in range(count)]


async def test_the_first_stamp_is_the_time(manual_clock: ManualClock) -> None:
    assert await Stamps(manual_clock).next() == manual_clock.wall_ms()


async def test_stamps_of_one_millisecond_rise_strictly_and_stay_near(
    manual_clock: ManualClock,
) -> None:
    now = manual_clock.wall_ms()
    taken = await take(Stamps(manual_clock), AHEAD_AT_MOST + 1)
    assert taken == list(range(now, now + AHEAD_AT_MOST + 1))


async def test_stamps_return_to_the_time_when_it_catches_up(manual_clock: ManualClock) -> None:
    stamps = Stamps(manual_clock)
    await take(stamps, 100)
    await manual_clock.advance(0.05)
    assert await stamps.next() == 1_700_000_000_100
    await manual_clock.advance(1)
    assert await stamps.next() == manual_clock.wall_ms()


async def test_a_burst_that_runs_ahead_waits_for_the_time(manual_clock: ManualClock) -> None:
    stamps = Stamps(manual_clock)
    last = (await take(stamps, AHEAD_AT_MOST + 1))[-1]
    waiting = [asyncio.create_task(stamps.next()) for _ in range(50)]
    await settle()
    assert not any(task.done() for task in waiting)
    got: list[int] = []
    for _ in range(51):
        await manual_clock.advance(0.001)
        for task in waiting:
            if task.done() and task.result() not in got:
                got.append(task.result())
                assert task.result() - manual_clock.wall_ms() <= AHEAD_AT_MOST
    assert got == list(range(last + 1, last + 51))


async def test_whoever_gives_up_waiting_takes_nobody_along(manual_clock: ManualClock) -> None:
    stamps = Stamps(manual_clock)
    last = (await take(stamps, AHEAD_AT_MOST + 1))[-1]
    first, second = asyncio.create_task(stamps.next()), asyncio.create_task(stamps.next())
    await settle()
    first.cancel()
    await manual_clock.advance(0.002)
    assert first.cancelled()
    assert second.result() == last + 2
    await manual_clock.advance(1)
    assert await stamps.next() > last + 2


@pytest.mark.parametrize("jump", [-TEN_MINUTES, TEN_MINUTES])
async def test_stamps_follow_a_clock_that_is_set(manual_clock: ManualClock, jump: int) -> None:
    stamps = Stamps(manual_clock)
    before = await take(stamps, 10)
    manual_clock.jump_wall(jump)
    after = await take(stamps, 10)
    assert after == [stamp + jump for stamp in before]


async def test_a_clock_set_forward_and_back_again_leaves_stamps_that_are_true(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = Stamps(manual_clock)
    await take(stamps, 3)
    manual_clock.jump_wall(TEN_MINUTES)
    await take(stamps, 3)
    manual_clock.jump_wall(-TEN_MINUTES)
    await manual_clock.advance(0.1)
    with caplog.at_level(logging.WARNING):
        after = await take(stamps, 5)
    assert [stamp - manual_clock.wall_ms() for stamp in after] == [0, 1, 2, 3, 4]
    assert caplog.messages == ["the clock was set back by 599 s"]


async def test_a_clock_nudged_back_repeats_nothing(manual_clock: ManualClock) -> None:
    stamps = Stamps(manual_clock)
    taken = await take(stamps, 5)
    for _ in range(5):
        manual_clock.jump_wall(-100)
        taken += await take(stamps, 5)
    assert taken == sorted(set(taken))
    assert taken[-1] - manual_clock.wall_ms() <= AHEAD_AT_MOST


async def test_nudges_that_add_up_are_one_set_back(
    manual_clock: ManualClock,
) -> None:
    stamps = Stamps(manual_clock)
    last = await stamps.next()
    manual_clock.jump_wall(-20_000)
    assert await stamps.next() == last + 1
    manual_clock.jump_wall(-20_000)
    assert await stamps.next() == manual_clock.wall_ms()


async def test_a_clock_set_back_while_a_call_waits_gives_it_a_true_stamp(
    manual_clock: ManualClock,
) -> None:
    stamps = Stamps(manual_clock)
    await take(stamps, AHEAD_AT_MOST + 1)
    waiting = asyncio.create_task(stamps.next())
    await settle()
    manual_clock.jump_wall(-TEN_MINUTES)
    await manual_clock.advance(0.001)
    assert waiting.result() == manual_clock.wall_ms()


async def test_stamps_by_the_clock_repeat_as_it_does(manual_clock: ManualClock) -> None:
    assert await take(ClockStamps(manual_clock), 3) == [manual_clock.wall_ms()] * 3


async def test_credentials_with_one_access_key_share_their_stamps(
    manual_clock: ManualClock,
) -> None:
    store = StampStore(manual_clock)
    first, second = store.of("canary-one-key"), store.of("canary-one-key")
    other = store.of("canary-other-key")
    assert await first.next() + 1 == await second.next()
    assert await other.next() == manual_clock.wall_ms()
    assert "canary" not in repr(vars(store))
