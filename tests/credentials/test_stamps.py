"""Stamps that Eko accepts: never twice the same, never far from the time."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.stamps import AHEAD_AT_MOST, ClockStamps, Share, Stamps, StampStore
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


# Several processes under one key.


def cell() -> memoryview:
    """Memory for one stamp, as a supervisor keeps it for a worker."""
    return memoryview(bytearray(8)).cast("q")


STEPS = st.lists(
    st.tuples(
        st.integers(0, 7),  # which worker, modulo their number
        st.sampled_from(["take", "burst", "die"]),
        st.sampled_from([0, 1, 2, 40, -1, -3000]),  # milliseconds by which the clock moves then
    ),
    max_size=60,
)


@given(of=st.integers(1, 8), steps=STEPS)
async def test_workers_never_share_a_stamp_nor_repeat_one_of_a_predecessor(
    of: int, steps: list[tuple[int, str, int]]
) -> None:
    """Whoever stamps, in whatever order, whoever dies, and though the clock is nudged back."""
    clock = ManualClock()
    cells = [cell() for _ in range(of)]
    workers = [Stamps(clock, Share(index, of, cells[index])) for index in range(of)]
    taken: list[int] = []
    for number, act, moves in steps:
        index = number % of
        if act == "die":
            workers[index] = Stamps(clock, Share(index, of, cells[index]))
        count = 30 if act == "burst" else 1
        stamps = await take(workers[index], count)
        assert all(stamp % of == index for stamp in stamps)
        taken += stamps
        clock.jump_wall(moves)
    assert len(set(taken)) == len(taken)


async def test_a_shares_first_stamp_is_the_next_of_its_milliseconds(
    manual_clock: ManualClock,
) -> None:
    now = manual_clock.wall_ms()
    for index in range(4):
        stamp = await Stamps(manual_clock, Share(index, 4, cell())).next()
        assert stamp % 4 == index
        assert 0 <= stamp - now < 4


async def test_a_successor_goes_on_behind_a_predecessor_that_ran_ahead(
    manual_clock: ManualClock,
) -> None:
    used = cell()
    before = await take(Stamps(manual_clock, Share(1, 2, used)), 1000)
    assert before[-1] - manual_clock.wall_ms() >= 1998
    after = await take(Stamps(manual_clock, Share(1, 2, used)), 10)
    assert after[0] == before[-1] + 2


async def test_a_stamp_that_was_never_used_holds_no_successor_back(
    manual_clock: ManualClock,
) -> None:
    used = cell()
    stamps = Stamps(manual_clock, Share(0, 2, used))
    last = (await take(stamps, AHEAD_AT_MOST // 2 + 1))[-1]
    waiting = [asyncio.create_task(stamps.next()) for _ in range(50)]
    await settle()
    for task in waiting:
        task.cancel()
    successor = Stamps(manual_clock, Share(0, 2, used))
    following = asyncio.create_task(successor.next())
    await manual_clock.advance(0.002)
    assert following.result() == last + 2


@pytest.mark.parametrize("alive", [True, False])
async def test_a_clock_that_is_set_back_frees_a_share_too(
    manual_clock: ManualClock, *, alive: bool
) -> None:
    used = cell()
    stamps = Stamps(manual_clock, Share(0, 2, used))
    await take(stamps, 3)
    manual_clock.jump_wall(-TEN_MINUTES)
    if alive:
        await take(stamps, 3)
    after = await Stamps(manual_clock, Share(0, 2, used)).next()
    assert 0 <= after - manual_clock.wall_ms() <= 6


async def test_each_key_of_a_worker_has_stamps_of_its_share(manual_clock: ManualClock) -> None:
    store = StampStore(manual_clock, Share(2, 3, cell()))
    for key in ("canary-one-key", "canary-other-key"):
        assert await store.of(key).next() % 3 == 2
