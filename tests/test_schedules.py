"""A thousand random schedules of one small pool and the exchanges on it.

Dials succeed and fail, upstreams answer, break off and speak out of turn, callers leave, deadlines
pass, and the pool itself is closed, in any order. Whatever happens: no connection is lost, none is
shared, the counts are right, nobody waits while there is room, and what is left over works.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING, Any, cast

import pytest

from proxy.addresses import parse_origin
from proxy.body import NO_BODY
from proxy.credentials.base import NOTHING, Authorization, Credential, Outgoing
from proxy.errors import ProxyError
from proxy.headers import Fields
from proxy.route import Route, Timeouts
from proxy.send import Sending
from proxy.upstream.connection import HIGH_WATER
from proxy.upstream.pool import Pool
from tests.support import settle
from tests.upstream.support import Transport, Wires

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.body import RequestBody
    from proxy.upstream.connection import Connection
    from proxy.upstream.dial import Dialer

pytestmark = pytest.mark.interpreted  # a pool and a body are stood in for
LIMIT = 3
AT_ONCE = 8  # exchanges
STEPS = 60
HEAD = re.compile(rb"[A-Z]+ /(\d+) HTTP/1\.1\r\n")
PATIENT, HASTY = 1000.0, 0.0  # seconds to wait for a connection


class Pauses:
    """Places at which an exchange waits until the schedule lets it go on."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def here(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            self._waiting.remove(waiter)

    def end_one(self, dice: random.Random) -> None:
        waiting = [each for each in self._waiting if not each.done()]
        if waiting:
            dice.choice(waiting).set_result(None)


class Refusable(Credential):
    """A credential that takes its time, and tries a refused request once more or not."""

    kind = "test"
    refusals = frozenset({401})

    def __init__(self, pauses: Pauses, dice: random.Random) -> None:
        self._pauses = pauses
        self._dice = dice

    async def authorise(self, outgoing: Outgoing) -> Authorization:
        del outgoing
        await self._pauses.here()
        return NOTHING

    async def again(
        self, outgoing: Outgoing, refused: Authorization, answer: bytes
    ) -> Authorization | None:
        del outgoing, refused, answer
        await self._pauses.here()
        fate = self._dice.randrange(3)
        if fate == 0:
            raise ProxyError("credential_unavailable", "None is to be had.")
        return NOTHING if fate == 1 else None


class Upload:
    """A body that is still coming."""

    length = whole = None

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._left = 2

    async def next(self) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        await self._pauses.here()
        return b"x"


class WatchedPool(Pool):
    """Knows who holds what."""

    held: set[Connection]

    def take(self, since: float) -> Connection | None:
        connection = super().take(since)
        if connection is not None:
            self._hand_out(connection)
        return connection

    async def acquire(self) -> Connection:
        connection = await super().acquire()
        self._hand_out(connection)
        return connection

    def release(self, connection: Connection) -> None:
        self.held.remove(connection)
        super().release(connection)

    def _hand_out(self, connection: Connection) -> None:
        assert connection not in self.held
        assert not connection.active
        self.held.add(connection)


class Upstream:
    """The other end of one transport: answers each request with its own number."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.asked: list[bytes] = []
        self.rest = b""  # of the answer to the last request
        self._answered = 0

    def look(self) -> None:
        """See what has been asked; a request before the last one's answer has left is an error."""
        asked = HEAD.findall(bytes(self.transport.written))
        for _ in asked[len(self.asked) :]:
            assert len(self.asked) == self._answered
            assert not self.rest
        self.asked = asked

    @property
    def owes(self) -> bool:
        self.look()
        return not self.transport.closing and bool(self.rest or len(self.asked) > self._answered)

    def answer(self, dice: random.Random | None) -> None:
        """Send an answer, or a part of one, or what is left of one; a good one without dice."""
        if not self.rest:
            self.rest = self._make(dice)
            self._answered += 1
        at = dice.randrange(len(self.rest)) if dice and dice.random() < 0.4 else len(self.rest)
        piece, self.rest = self.rest[:at], self.rest[at:]
        self.transport.feed(piece)

    def _make(self, dice: random.Random | None) -> bytes:
        status, size, fields, junk = 200, 3, b"", b""
        if dice is not None:
            status = dice.choice([200, 200, 401])
            size = dice.choice([0, 3, HIGH_WATER + 1])
            fields = dice.choice([b"", b"", b"", b"Connection: close\r\n", b"Broken\r\n"])
            junk = dice.choice([b"", b"", b"", b"", b"HTTP/1.1 200 OK\r\n\r\n"])
        number = self.asked[-1]
        body = number * -(-size // len(number))
        framing = b"Content-Length: %d\r\n%b\r\n" % (len(body), fields)
        return b"HTTP/1.1 %d X\r\n%b%b%b" % (status, framing, body, junk)


class Schedule:
    """Random events; what has to hold at all times is checked after each."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a schedule, no secret
        self.time = 1000.0
        self.wires = Wires()
        self.pauses = Pauses()
        self.exchanges: list[asyncio.Task[int]] = []
        self.number = 0
        self.upstreams: list[Upstream] = []
        self.pool = WatchedPool(
            cast("Dialer", self.wires), now=self._now, connect_timeout=PATIENT, limit=LIMIT
        )
        self.pool.held = set()
        self.route = Route(
            "it",
            upstream=parse_origin("http://127.0.0.1"),
            credential=Refusable(self.pauses, self.dice),
            pool=self.pool,
            timeout=Timeouts(10, 10, None),
        )

    def _now(self) -> float:
        return self.time

    async def run(self) -> None:
        usual: list[Callable[[], Any]] = [
            *[self.ask] * 5,
            *[self.go_on] * 6,
            *[self.dial] * 3,
            *[self.answer] * 6,
            *[self.cancel] * 2,
            self.refuse,
            self.end,
            self.reset,
            self.interrupt,
            self.stall,
            self.wait,
            self.hurry,
        ]
        rare = [self.expire, self.pool.close, self.pool.abort]
        for _ in range(STEPS):
            self.dice.choice(rare if self.dice.random() < 0.01 else usual)()
            await settle(self.dice.choice([0, 0, 1, 2, 12]))
            self.check()
            if self.dice.random() < 0.1:
                await settle(12)
                self.check_at_rest()

    # What may happen.

    def ask(self) -> None:
        if len(self.exchanges) < AT_ONCE:
            self.exchanges.append(asyncio.ensure_future(self._exchange()))

    async def _exchange(self) -> int:
        """Go through one exchange as the proxy does; return the status."""
        self.number += 1
        number = b"%d" % self.number
        method = self.dice.choice(["GET", "POST"])
        body = NO_BODY
        if method == "POST" and self.dice.random() < 0.5:
            body = cast("RequestBody", Upload(self.pauses))
        fields = Fields()
        fields.lines, fields.read = [], {}
        outgoing = Outgoing(method, "/", "", {}, None)
        sending = Sending(self.route, outgoing, b"/%b" % number, fields, body)
        reply = await sending.reply()
        got = b"".join(reply.pieces)
        connection = reply.connection
        try:
            while connection is not None and not connection.reader.complete:
                if self.dice.random() < 0.5:
                    await self.pauses.here()  # a slow caller
                await connection.more(10)
                got += b"".join(connection.take())
        finally:
            sending.finish(reply)
        assert not got.replace(number, b"")
        return reply.head.status

    def go_on(self) -> None:
        self.pauses.end_one(self.dice)

    def cancel(self) -> None:
        if self.exchanges:
            self.dice.choice(self.exchanges).cancel()

    def dial(self) -> None:
        if self.wires.dialling:
            self.wires.stillborn = self.dice.random() < 0.1
            self.wires.answer(at=self.dice.randrange(len(self.wires.dialling)))

    def refuse(self) -> None:
        if self.wires.dialling:
            self.wires.answer(error=True, at=self.dice.randrange(len(self.wires.dialling)))

    def answer(self) -> None:
        owing = [each for each in self._upstreams() if each.owes]
        if owing:
            self.dice.choice(owing).answer(self.dice)

    def end(self) -> None:
        self._some().eof()

    def reset(self) -> None:
        self._some().end(ConnectionResetError())

    def interrupt(self) -> None:
        """Say something unasked where nothing is owed."""
        quiet = [each for each in self._upstreams() if not each.owes]
        if quiet:
            unasked = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
            self.dice.choice(quiet).transport.feed(unasked)

    def stall(self) -> None:
        """Take no more of what is written for a while, or go on."""
        transport = self._some()
        if not transport.closing:
            protocol = transport.protocol
            self.dice.choice([protocol.pause_writing, protocol.resume_writing])()

    def wait(self) -> None:
        """Let what is idle grow too old for some, or for all."""
        self.time += self.dice.choice([1, 5])
        self.pool.sweep(self.time)

    def expire(self) -> None:
        self.time += 20
        self.pool.sweep(self.time)
        assert all(each.closed for each in self.pool._all if each.is_late(self.time))

    def hurry(self) -> None:
        """Change how long the next ones queue."""
        self.pool._connect_timeout = self.dice.choice([PATIENT, PATIENT, HASTY])

    def _some(self) -> Transport:
        """Return some connection's transport, or one that has nothing to do with the pool."""
        there = self.wires.open_ones
        return self.dice.choice(there) if there else Transport(asyncio.Protocol())

    def _upstreams(self) -> list[Upstream]:
        self.upstreams += [Upstream(each) for each in self.wires.all[len(self.upstreams) :]]
        return self.upstreams

    # What has to hold.

    def check(self) -> None:
        """At any moment."""
        for upstream in self._upstreams():
            upstream.look()
        pool, counts = self.pool, self.pool.counts()
        assert min(counts.values()) >= 0, pool
        assert sum(counts.values()) <= LIMIT, pool
        assert len(set(pool._idle)) == len(pool._idle)
        assert set(pool._idle) <= pool._all
        assert not pool.held & set(pool._idle)
        assert not any(each.active for each in pool._idle)
        for done in [each for each in self.exchanges if each.done()]:
            self.exchanges.remove(done)
            if not done.cancelled() and not isinstance(done.exception(), ProxyError):
                done.result()

    def check_at_rest(self) -> None:
        """When everything that could run has run."""
        self.check()
        pool = self.pool
        there = [each.protocol for each in self.wires.open_ones if not each.closing]
        assert set(there) == {each for each in pool._all if each in there}
        assert pool._all <= pool.held | set(pool._idle)
        assert pool.counts()["opening"] == len(self.wires.dialling)
        if [each for each in pool._waiters if not each.done()]:
            assert sum(pool.counts().values()) == LIMIT, pool
            assert not pool._idle, pool

    async def settle_down(self) -> None:
        """Let everything come to its end, all going well from here."""
        self.pool._connect_timeout = PATIENT
        self.wires.stillborn = False
        for _ in range(500):
            if not self.exchanges:
                break
            for transport in self.wires.open_ones:
                if not transport.closing:
                    transport.protocol.resume_writing()
            self.go_on()
            if self.wires.dialling:
                self.wires.answer()
            for upstream in self._upstreams():
                if upstream.owes:
                    upstream.answer(None)
            await settle(3)
            self.check()
        assert not self.exchanges
        await settle(12)
        self.check_at_rest()
        assert not self.pool.held
        assert self.pool._all == set(self.pool._idle)

    async def finish(self) -> None:
        """What is left over works, all of it, and the last one leaves nothing behind."""
        await self.settle_down()
        for _ in range(LIMIT):
            self.exchanges.append(asyncio.ensure_future(self._exchange()))
        last = list(self.exchanges)
        await self.settle_down()
        assert [each.result() for each in last] == [200] * LIMIT
        self.pool.close()
        await settle(12)
        assert self.pool.counts() == {"active": 0, "idle": 0, "opening": 0}
        assert not self.wires.open_ones


@pytest.mark.parametrize("hundred", range(10))
async def test_no_schedule_loses_or_shares_a_connection(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        schedule = Schedule(seed)
        try:
            await schedule.run()
            await schedule.finish()
        except BaseException as error:
            error.add_note(f"seed {seed}: {schedule.pool!r}")
            raise
