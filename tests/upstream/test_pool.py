"""The pool: bounded, fair, and right in its counts whatever is cancelled, lost or late."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, cast

import pytest

from proxy.addresses import parse_origin
from proxy.errors import ProxyError
from proxy.model import Tls
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import IDLE_AT_MOST, Pool
from tests.support import ScriptedUpstream, answer, settle, until
from tests.upstream.support import Wires, head

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.upstream.connection import Connection

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
NOTHING = {"active": 0, "idle": 0, "opening": 0}


def pool_of(upstream: ScriptedUpstream, *, limit: int = 10, timeout: float = 5) -> Pool:
    return Pool(
        Dialer(parse_origin(upstream.url), Tls()),
        now=time.monotonic,
        connect_timeout=timeout,
        limit=limit,
    )


def wired(*, limit: int = 10, timeout: float = 5) -> tuple[Pool, Wires]:
    """Make a pool whose connections have no sockets."""
    wires = Wires()
    dialer = cast("Dialer", wires)
    pool = Pool(dialer, now=time.monotonic, connect_timeout=timeout, limit=limit)
    return pool, wires


async def acquired(pool: Pool, wires: Wires) -> Connection:
    """Have a new connection."""
    acquiring = asyncio.create_task(pool.acquire())
    await settle()
    wires.answer()
    return await acquiring


async def converse(connection: Connection) -> bytes:
    """Run one exchange to its end."""
    connection.begin("GET")
    connection.write(ASK)
    connection.wrote_all = True
    await head(connection)
    body = connection.take()
    while not connection.reader.complete:
        await connection.more(5)
        body += connection.take()
    return b"".join(body)


async def used(pool: Pool) -> Connection:
    """Have a connection that has served one request, and is idle."""
    connection = await pool.acquire()
    await converse(connection)
    pool.release(connection)
    return connection


def ago(seconds: float) -> float:
    return asyncio.get_running_loop().time() - seconds


async def test_the_connection_used_last_is_used_again() -> None:
    async with ScriptedUpstream([answer()] * 5) as upstream:
        pool = pool_of(upstream)
        one, two = await pool.acquire(), await pool.acquire()
        for each in (one, two):
            await converse(each)
            pool.release(each)
        assert repr(pool) == "<Pool 0 active, 2 idle, 0 opening, 0 waiting>"
        assert pool.take(ago(15)) is two
        assert pool.take(ago(15)) is one
        assert pool.take(ago(15)) is None
        pool.abort()


async def test_a_connection_idle_for_too_long_is_not_taken() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream)
        connection = await used(pool)
        connection.idle_since -= 10
        assert pool.take(ago(4)) is None
        assert pool.take(ago(15)) is connection
        pool.abort()


async def test_a_connection_idle_for_too_long_is_closed() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream)
        connection = await used(pool)
        pool.sweep(connection.idle_since + IDLE_AT_MOST - 1)
        assert pool.counts()["idle"] == 1
        pool.sweep(connection.idle_since + IDLE_AT_MOST + 1)
        await until(lambda: pool.counts() == NOTHING)
        await until(upstream.connections[0].lost.is_set)


async def test_never_more_connections_than_the_limit_and_first_come_first_served() -> None:
    async with ScriptedUpstream([answer()] * 9) as upstream:
        pool = pool_of(upstream, limit=2)
        held = [await pool.acquire(), await pool.acquire()]
        order: list[int] = []

        async def wait_as(number: int) -> Connection:
            connection = await pool.acquire()
            order.append(number)
            return connection

        tasks = [asyncio.create_task(wait_as(n)) for n in range(4)]
        await settle()
        assert repr(pool) == "<Pool 2 active, 0 idle, 0 opening, 4 waiting>"
        for turn in range(4):
            connection = held.pop(0)
            await converse(connection)
            pool.release(connection)
            held.append(await tasks[turn])
        assert order == [0, 1, 2, 3]
        assert len(upstream.connections) == 2
        pool.abort()


async def test_the_place_of_a_connection_that_is_lost_goes_to_who_waits() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream, limit=1)
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        held.begin("GET")
        pool.release(held)  # in the middle of an exchange: not to be used again
        fresh = await waiting
        assert fresh is not held
        assert pool.counts() == {"active": 1, "idle": 0, "opening": 0}
        pool.abort()


async def test_an_idle_connection_makes_room_for_who_needs_a_new_one() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream, limit=1)
        idle = await used(pool)
        fresh = await pool.acquire()
        assert fresh is not idle
        assert idle.closed
        assert pool.counts() == {"active": 1, "idle": 0, "opening": 0}
        pool.abort()


async def test_a_waiter_that_is_cancelled_leaves_its_turn_to_the_next() -> None:
    async with ScriptedUpstream([answer()] * 5) as upstream:
        pool = pool_of(upstream, limit=1)
        held = await pool.acquire()
        first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
        await settle()
        first.cancel()
        await converse(held)
        pool.release(held)
        assert await second is held
        pool.abort()


async def test_a_waiter_cancelled_as_it_is_served_passes_on_what_it_got() -> None:
    async with ScriptedUpstream([answer()] * 5) as upstream:
        pool = pool_of(upstream, limit=1)
        held = await pool.acquire()
        await converse(held)
        first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
        await settle()
        pool.release(held)  # first has it now, but has not run yet
        first.cancel()
        assert await second is held
        pool.abort()


async def test_a_connection_lost_on_its_way_to_a_cancelled_waiter_is_not_counted() -> None:
    async with ScriptedUpstream([answer()] * 5) as upstream:
        pool = pool_of(upstream, limit=1)
        held = await pool.acquire()
        await converse(held)
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        pool.release(held)
        held.connection_lost(None)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.counts() == NOTHING
        assert (await pool.acquire()) is not held
        pool.abort()


async def test_who_waits_too_long_is_told_of_overload() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream, limit=1, timeout=0.01)
        pool._connect_timeout = 5
        held = await pool.acquire()
        pool._connect_timeout = 0.01
        with pytest.raises(ProxyError) as caught:
            await pool.acquire()
        assert (caught.value.code, caught.value.sent) == ("overloaded", False)
        assert caught.value.retry_after is not None
        pool.release(held)
        pool.abort()


async def test_a_dial_that_fails_frees_its_place() -> None:
    async with ScriptedUpstream([]) as upstream:
        pool = pool_of(upstream, limit=1)
    for _ in range(3):
        with pytest.raises(ProxyError) as caught:
            await pool.acquire()
        assert caught.value.code == "upstream_unreachable"
        assert pool.counts() == NOTHING


async def test_a_dial_that_is_cancelled_frees_its_place() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream, limit=1)
        dialling = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        assert pool.counts()["opening"] == 1
        dialling.cancel()
        await asyncio.wait([dialling])
        assert pool.counts() == NOTHING
        assert not (await pool.acquire()).closed
        pool.abort()


async def test_an_idle_connection_that_upstream_closes_is_noticed() -> None:
    async def play(wire: object) -> None:
        await wire.request()  # type: ignore[attr-defined]  # a wire
        await wire.send(answer())  # type: ignore[attr-defined]  # as above

    async with ScriptedUpstream(play) as upstream:
        pool = pool_of(upstream)
        await used(pool)
        await until(lambda: pool.counts() == NOTHING)
        assert pool.take(ago(15)) is None


async def test_data_on_an_idle_connection_closes_it() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream)
        connection = await used(pool)
        await upstream.connections[0].send(b"unasked")
        await until(lambda: connection.closed)
        assert pool.take(ago(15)) is None


async def test_a_connection_given_back_before_its_answer_has_ended_is_closed() -> None:
    async with ScriptedUpstream([answer(b"x" * 100)[:-50]]) as upstream:
        pool = pool_of(upstream)
        connection = await pool.acquire()
        connection.begin("GET")
        connection.write(ASK)
        connection.wrote_all = True
        await head(connection)
        pool.release(connection)
        assert connection.closed
        await until(lambda: pool.counts() == NOTHING)


async def test_a_connection_given_back_before_its_request_has_ended_is_closed() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream)
        connection = await pool.acquire()
        connection.begin("GET")
        connection.write(ASK)
        await head(connection)
        pool.release(connection)
        assert connection.closed
        await until(lambda: pool.counts() == NOTHING)


async def test_a_connection_given_back_unused_is_kept() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        pool = pool_of(upstream)
        connection = await pool.acquire()
        pool.release(connection)
        assert pool.take(ago(15)) is connection
        pool.abort()


async def test_a_closed_pool_keeps_nothing_but_what_is_in_use() -> None:
    async with ScriptedUpstream([answer()] * 5) as upstream:
        pool = pool_of(upstream)
        busy = await pool.acquire()
        idle = await used(pool)
        pool.close()
        assert idle.closed
        assert await converse(busy) == b""
        pool.release(busy)
        assert busy.closed
        await until(lambda: pool.counts() == NOTHING)


async def test_a_connection_reset_on_its_way_to_a_waiter_leaves_that_one_its_place() -> None:
    """The pool hears of it after the waiter was given the connection, and before it has run."""
    pool, wires = wired(limit=1)
    held = await acquired(pool, wires)
    waiting = asyncio.create_task(pool.acquire())
    await settle()
    wires.of(held).end(ConnectionResetError())
    pool.release(held)
    await settle()
    assert len(wires.dialling) == 1
    wires.answer()
    assert await waiting is not held
    assert pool.counts() == {"active": 1, "idle": 0, "opening": 0}


async def test_a_waiter_whose_connection_closes_on_the_way_keeps_its_turn() -> None:
    pool, wires = wired(limit=1)
    held = await acquired(pool, wires)
    first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
    await settle()
    pool.release(held)
    wires.of(held).eof()
    await settle()
    wires.answer()
    fresh = await first
    assert not second.done()
    pool.release(fresh)
    assert await second is fresh


async def test_a_connection_that_ends_as_it_begins_takes_no_place() -> None:
    pool, wires = wired(limit=1)
    wires.stillborn = True
    assert (await acquired(pool, wires)).closed
    assert pool.counts() == NOTHING
    wires.stillborn = False
    assert not (await acquired(pool, wires)).closed


async def test_an_idle_connection_whose_end_is_coming_is_not_taken() -> None:
    pool, wires = wired()
    connection = await acquired(pool, wires)
    pool.release(connection)
    wires.of(connection).eof()
    assert pool.take(ago(15)) is None


async def test_the_one_that_makes_room_has_been_idle_for_the_longest_time() -> None:
    pool, wires = wired(limit=2)
    one, two = await acquired(pool, wires), await acquired(pool, wires)
    pool.release(one)
    pool.release(two)
    await acquired(pool, wires)
    assert one.closed
    assert pool.take(ago(15)) is two


async def queueing(count: int) -> tuple[Pool, Wires, Connection, list[asyncio.Task[Connection]]]:
    """Have a pool of one connection, its holder, and some who queue for it."""
    pool, wires = wired(limit=1)
    held = await acquired(pool, wires)
    tasks = [asyncio.create_task(pool.acquire()) for _ in range(count)]
    await settle()
    return pool, wires, held, tasks


async def test_a_place_given_to_who_is_cancelled_goes_to_the_next() -> None:
    pool, wires, held, (first, second) = await queueing(2)
    held.connection_lost(None)  # first has its place now, but has not run yet
    first.cancel()
    await settle()
    assert pool.counts() == {"active": 0, "idle": 0, "opening": 1}
    wires.answer()
    assert not (await second).closed


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is cancelled as it succeeds"])
async def test_the_place_of_a_dial_that_comes_to_nothing_goes_to_the_next(how: str) -> None:
    pool, wires, held, (first, second) = await queueing(2)
    held.connection_lost(None)
    await settle()
    if how != "is cancelled":
        wires.answer(error=how == "fails")
    if how != "fails":
        first.cancel()
    await settle()
    assert first.done()
    assert len(wires.dialling) == pool.counts()["opening"] == 1
    wires.answer()
    assert not (await second).closed
    with contextlib.suppress(ProxyError, asyncio.CancelledError):
        await first


async def test_who_is_told_of_overload_just_as_it_is_served_passes_on_what_it_got() -> None:
    pool, _, held, _ = await queueing(0)
    loop = asyncio.get_running_loop()
    pool._connect_timeout = 0
    first = asyncio.create_task(pool.acquire())  # its time is up when the loop comes round
    loop.call_soon(setattr, pool, "_connect_timeout", 5)
    second = asyncio.create_task(pool.acquire())
    loop.call_soon(pool.release, held)
    with pytest.raises(ProxyError) as caught:
        await first
    assert caught.value.code == "overloaded"
    assert await second is held


@pytest.mark.parametrize("end", [Pool.close, Pool.abort])
async def test_what_a_cancelled_waiter_got_from_a_pool_that_closed_meanwhile_is_not_kept(
    end: Callable[[Pool], None],
) -> None:
    pool, wires, held, (waiting,) = await queueing(1)
    pool.release(held)
    end(pool)
    waiting.cancel()
    await asyncio.wait([waiting])
    await settle()
    assert wires.of(held).lost
    assert pool.counts() == NOTHING


@pytest.mark.parametrize("end", [Pool.close, Pool.abort])
async def test_who_queues_at_a_pool_that_closes_is_served_all_the_same(
    end: Callable[[Pool], None],
) -> None:
    """Requests that were accepted under an old configuration come to their end."""
    pool, wires, held, (waiting,) = await queueing(1)
    end(pool)
    if end is Pool.close:
        pool.release(held)
    await settle()
    wires.answer()
    fresh = await waiting
    assert fresh is not held
    pool.release(fresh)
    await settle()
    assert pool.counts() == NOTHING
    assert not wires.open_ones


async def test_what_was_said_last_is_sent_before_a_connection_ends() -> None:
    pool, wires = wired()
    held = await acquired(pool, wires)
    held.begin("GET")
    held.close()
    pool.release(held)
    assert wires.of(held).events == ["close"]
    assert not wires.of(held).aborted


# Any order of events.


class Schedule:
    """Random events on one small pool; what holds at all times is checked after each."""

    LIMIT = 3

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool = pool
        self.random = random.Random(seed)  # noqa: S311 - a schedule, no secret
        self.asking: list[asyncio.Task[Connection]] = []
        self.held: list[Connection] = []

    async def run(self, steps: int) -> None:
        events: list[Callable[[], None]] = [
            *[self.ask] * 4,
            *[self.give_back] * 3,
            self.cancel,
            self.lose,
            self.break_off,
            self.expire,
        ]
        for _ in range(steps):
            self.random.choice(events)()
            if self.random.random() < 0.5:
                await settle(self.random.randrange(1, 6))
            self.collect()
            self.check()

    def ask(self) -> None:
        taken = self.pool.take(ago(15))
        if taken is not None:
            self.held.append(taken)
        else:
            self.asking.append(asyncio.ensure_future(self.pool.acquire()))

    def give_back(self) -> None:
        if self.held:
            self.pool.release(self.held.pop(self.random.randrange(len(self.held))))

    def break_off(self) -> None:
        if self.held:
            connection = self.held.pop()
            connection.begin("GET")
            self.pool.release(connection)

    def cancel(self) -> None:
        if self.asking:
            self.random.choice(self.asking).cancel()

    def lose(self) -> None:
        """End some connection from outside, wherever it is at the moment."""
        if self.pool._all:
            connection = self.random.choice(sorted(self.pool._all, key=id))
            connection.abort()

    def expire(self) -> None:
        self.pool.sweep(time.monotonic() + 60)

    def collect(self) -> None:
        for task in [each for each in self.asking if each.done()]:
            self.asking.remove(task)
            if not task.cancelled():
                self.held.append(task.result())

    def check(self) -> None:
        counts = self.pool.counts()
        assert min(counts.values()) >= 0, self.pool
        assert sum(counts.values()) <= self.LIMIT, self.pool
        assert len(set(map(id, self.held))) == len(self.held)
        assert not set(map(id, self.held)) & set(map(id, self.pool._idle))
        assert set(self.pool._idle) <= self.pool._all

    async def end(self) -> None:
        """When all is given back nobody waits, and nothing is counted that is not there."""
        async with asyncio.timeout(5):
            while self.asking or self.held:
                self.give_back()
                await settle(3)
                self.collect()
                self.check()
        self.pool.close()
        await until(lambda: self.pool.counts() == NOTHING)


@pytest.mark.parametrize("seed", range(25))
async def test_no_order_of_events_breaks_the_counts_or_leaves_a_waiter(seed: int) -> None:
    async with ScriptedUpstream([]) as upstream:
        schedule = Schedule(pool_of(upstream, limit=Schedule.LIMIT), seed)
        with contextlib.suppress(asyncio.CancelledError):
            await schedule.run(150)
        await schedule.end()
