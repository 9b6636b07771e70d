"""Callers leave and tasks are cancelled at every moment of a request: nothing of it stays behind,
and nothing is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from proxy import tokens
from proxy.credentials.eka_login import EkaLogin
from proxy.credentials.stamps import Stamps
from proxy.forward import Forwarder
from proxy.sandbox import Fault, StandIns
from proxy.upstream.dial import Dialer
from tests.stepping import MOMENTS, Cancelled
from tests.support import (
    JSON,
    PATIENCE,
    PAYBILL,
    PAYMENT,
    Broken,
    RawClient,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    settle,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from proxy.caller import Caller
    from proxy.route import Route
    from tests.support import Message, Proxy, Running, UpstreamWire

AT_THE_DOOR = '{"response_status_id": 1, "status": 2485, "message": "refused"}'
CHUNKED = [("Transfer-Encoding", "chunked")]
PIECE = b"400\r\n" + b"x" * 1024 + b"\r\n"
LAST = b"0\r\n\r\n"
PLENTY = 64 * 1024 * 1024  # bytes; more than sockets and buffers hold
HOW = ["reset", "close", "cancel"]


class Tasks:
    """The tasks that serve requests, in the order of their coming."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.all: list[asyncio.Task[Any]] = []
        handle = Forwarder.handle

        async def noted(self_: Forwarder, asked: Caller) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.all.append(task)
            await handle(self_, asked)

        monkeypatch.setattr(Forwarder, "handle", noted)

    def leave(self, client: RawClient, how: str) -> None:
        """Let the caller whose request came last go away, or cancel the task that serves it."""
        if how == "cancel":
            self.all[-1].cancel()
        elif how == "reset":
            client.reset()
        else:
            client.close()


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return Tasks(monkeypatch)


class Gate:
    """Makes calls of a coroutine function wait while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self._open = asyncio.Event()
        self._passing = 0
        self.waiting = 0
        self.open()
        original = getattr(owner, name)

        async def gated(*args: Any, **kwargs: Any) -> Any:
            await self._pass()
            return await original(*args, **kwargs)

        monkeypatch.setattr(owner, name, gated)

    def open(self) -> None:
        self._open.set()

    def close(self, *, passing: int = 0) -> None:
        """Let so many more pass, and then none."""
        self._passing = passing
        self._open.clear()

    async def _pass(self) -> None:
        if self._passing:
            self._passing -= 1
            return
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


def uploads() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "upload"]


def is_clear(proxy: Proxy, route: Route) -> bool:
    """Nothing is under way, and what is counted is there."""
    pool, counts = route.pool, route.pool.counts()
    return (
        route.in_flight == 0
        and proxy.app._budget.kept == 0
        and counts["active"] == counts["opening"] == 0
        and not [each for each in pool._waiters if not each.done()]
        and not any(each.closed for each in pool._all)
        and set(pool._idle) == pool._all
        and not uploads()
    )


async def nothing_stays(proxy: Proxy, name: str) -> None:
    route = proxy.route(name)
    try:
        await until(lambda: is_clear(proxy, route))
    except TimeoutError:
        pytest.fail(f"{route.pool!r}, {route.in_flight} in flight, {proxy.app._budget.kept} kept")


async def left_in_peace(proxy: Proxy, name: str = "plain", target: str = "/") -> None:
    """After a caller has left: no trace, and the next one is served."""
    await nothing_stays(proxy, name)
    last = proxy.lines()[-1]
    assert last["code"] == "caller_closed"
    assert (await ask(proxy.url(name), "GET", target)).status == 200
    await nothing_stays(proxy, name)


# What a request waits for, one after another.


@pytest.mark.parametrize("how", HOW)
async def test_waiting_for_a_token(monkeypatch: pytest.MonkeyPatch, tasks: Tasks, how: str) -> None:
    gate = Gate(monkeypatch, EkaLogin, "fetch")
    gate.close()
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as front:
        async with raw_client(front.eka) as client:
            await client.send(request("GET", "/x"))
            await until(lambda: gate.waiting and front.route("eka").in_flight)
            tasks.leave(client, how)
            await nothing_stays(front, "eka")
        assert gate.waiting == 1  # the fetch goes on for whoever comes next
        gate.open()
        await left_in_peace(front, "eka", "/x")
        assert stand_ins.eka.logins == 1


@pytest.mark.parametrize("how", HOW)
async def test_waiting_for_another_token_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tasks: Tasks, how: str
) -> None:
    gate = Gate(monkeypatch, EkaLogin, "fetch")
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as front:
        await ask(front.eka, "GET", "/x")
        gate.close()
        stand_ins.eka.revoke_all()
        async with raw_client(front.eka) as client:
            await client.send(request("POST", "/echo", body=b"{}"))
            await until(lambda: gate.waiting)
            tasks.leave(client, how)
            await nothing_stays(front, "eka")
        gate.open()
        await left_in_peace(front, "eka", "/x")
        assert [each.target for each in stand_ins.eka.journal].count("/echo") == 1


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("how", HOW)
async def test_a_payment_turned_away_at_the_door_that_waits_to_be_signed_anew(
    monkeypatch: pytest.MonkeyPatch, front: Running, tasks: Tasks, how: str, *, large: bool
) -> None:
    gate = Gate(monkeypatch, Stamps, "next")
    eko = front.stand_ins.eko
    # A refusal that is more than a credential reads keeps its connection meanwhile.
    body = AT_THE_DOOR + " " * (300_000 if large else 0)
    eko.faults.add(Fault("POST /", status=401, body=body))
    gate.close(passing=2)  # before and after there is a connection
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: gate.waiting)
        assert eko.arrived == 1
        assert front.route("eko").pool.counts()["active"] == large
        tasks.leave(client, how)
        await nothing_stays(front, "eko")
    gate.open()
    await left_in_peace(front, "eko", "/ekoapi/v3/x")
    assert (eko.arrived, eko.payments) == (2, [])


@pytest.mark.parametrize("how", HOW)
async def test_dialling(
    monkeypatch: pytest.MonkeyPatch, front: Running, tasks: Tasks, how: str
) -> None:
    gate = Gate(monkeypatch, Dialer, "_open")
    gate.close()
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: front.route("eko").pool.counts()["opening"])
        assert front.app._budget.kept > 0
        tasks.leave(client, how)
        await nothing_stays(front, "eko")
    gate.open()
    await left_in_peace(front, "eko", "/ekoapi/v3/x")
    assert (front.stand_ins.eko.arrived, front.stand_ins.eko.payments) == (1, [])


@pytest.mark.parametrize("how", HOW)
async def test_queueing_for_a_connection(front: Running, tasks: Tasks, how: str) -> None:
    eko, pool = front.stand_ins.eko, front.route("eko").pool
    pool._limit = 1
    eko.faults.add(Fault("GET /", kind="hang"))
    async with raw_client(front.eko) as busy, raw_client(front.eko) as client:
        await busy.send(request("GET", "/ekoapi/v3/x"))
        await until(lambda: eko.arrived)
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: pool._waiters)
        tasks.leave(client, how)
        await until(lambda: front.route("eko").in_flight == 1)
        assert front.app._budget.kept == 0
        assert pool.counts() == {"active": 1, "idle": 0, "opening": 0}
        busy.reset()
        await nothing_stays(front, "eko")
    await left_in_peace(front, "eko", "/ekoapi/v3/x")
    assert (eko.arrived, eko.payments) == (2, [])


@pytest.mark.parametrize("how", HOW)
async def test_authorising_once_there_is_a_connection(
    monkeypatch: pytest.MonkeyPatch, front: Running, tasks: Tasks, how: str
) -> None:
    dial, stamp = Gate(monkeypatch, Dialer, "_open"), Gate(monkeypatch, Stamps, "next")
    dial.close()
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: dial.waiting)
        stamp.close()
        dial.open()
        await until(lambda: stamp.waiting)
        assert front.route("eko").pool.counts()["active"] == 1
        tasks.leave(client, how)
        await nothing_stays(front, "eko")
    stamp.open()
    await left_in_peace(front, "eko", "/ekoapi/v3/x")
    assert (front.stand_ins.eko.arrived, front.stand_ins.eko.payments) == (1, [])


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("how", HOW)
async def test_waiting_for_a_payments_answer(
    front: Running, tasks: Tasks, how: str, *, kept: bool
) -> None:
    eko = front.stand_ins.eko
    if kept:
        await ask(front.eko, "GET", "/ekoapi/v3/x")
    eko.faults.add(Fault("POST /", kind="hang", after_processing=True))
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: eko.payments)
        tasks.leave(client, how)
        await nothing_stays(front, "eko")
    await left_in_peace(front, "eko", "/ekoapi/v3/x")
    assert len(eko.payments) == 1
    assert [each.method for each in eko.journal].count("POST") == 1


@pytest.mark.parametrize("how", HOW)
async def test_reading_a_body_that_is_signed_over(front: Running, tasks: Tasks, how: str) -> None:
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT)[:-10])
        await until(lambda: front.app._budget.kept)
        tasks.leave(client, how)
        await nothing_stays(front, "eko")
    assert front.stand_ins.eko.arrived == 0
    await left_in_peace(front, "eko", "/ekoapi/v3/x")


# Uploads. On its first connection, an upstream plays; on further ones, it answers.


@contextlib.asynccontextmanager
async def playing(
    play: Callable[[UpstreamWire], Coroutine[Any, Any, None]],
) -> AsyncIterator[tuple[ScriptedUpstream, Proxy, RawClient]]:
    async with (
        ScriptedUpstream(play, [answer()] * 9) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        yield upstream, proxy, client


async def swallow(wire: UpstreamWire) -> None:
    await wire.rest()
    wire.lost.set()


@pytest.mark.parametrize("how", HOW)
async def test_uploading_while_more_is_to_come(tasks: Tasks, how: str) -> None:
    async with playing(swallow) as (upstream, proxy, client):
        await client.send(request("POST", "/", CHUNKED), PIECE)
        await until(lambda: upstream.connections and upstream.connections[0].received)
        tasks.leave(client, how)
        await until(upstream.connections[0].lost.is_set)
        await left_in_peace(proxy)
        assert not upstream.connections[0].received.endswith(LAST)


@pytest.mark.parametrize("how", HOW)
async def test_uploading_while_the_upstream_takes_no_more(tasks: Tasks, how: str) -> None:
    async with playing(swallow) as (upstream, proxy, client):
        await client.send(request("POST", "/", CHUNKED))
        await until(lambda: upstream.connections and upstream.connections[0].received)
        (connection,) = proxy.route("plain").pool._all
        connection.pause_writing()  # as a transport does whose buffer is full
        await client.send(PIECE)
        await until(lambda: connection._drained)
        tasks.leave(client, how)
        await until(upstream.connections[0].lost.is_set)
        await left_in_peace(proxy)
        assert not upstream.connections[0].received.endswith(LAST)


@pytest.mark.parametrize("how", HOW)
async def test_uploading_while_neither_is_read_any_further(tasks: Tasks, how: str) -> None:
    """A caller whose bytes are not read either is found gone only when the deadline has passed."""
    ends = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await ends.wait()

    async with playing(play) as (_, proxy, client):
        await client.send(request("POST", "/", [("Content-Length", str(PLENTY))]))
        pouring = asyncio.create_task(client.send(b"x" * PLENTY))
        await until(lambda: any(each._drained for each in proxy.route("plain").pool._all))
        await settle()
        tasks.leave(client, how)
        if how != "cancel":
            client.drop()
            proxy.let_deadlines_pass()
        await nothing_stays(proxy, "plain")
        client.drop()
        await asyncio.gather(pouring, return_exceptions=True)
        assert (await ask(proxy.plain, "GET", "/")).status == 200
        await nothing_stays(proxy, "plain")
        ends.set()


@pytest.mark.parametrize("how", HOW)
async def test_uploading_when_the_answer_has_come_already(tasks: Tasks, how: str) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await swallow(wire)

    async with playing(play) as (upstream, proxy, client):
        await client.send(request("POST", "/", CHUNKED), PIECE)
        await client.head()
        assert uploads()
        tasks.leave(client, how)
        await until(upstream.connections[0].lost.is_set)
        await left_in_peace(proxy)


# Answers.


@pytest.mark.parametrize("uploading", [False, True])
@pytest.mark.parametrize("how", HOW)
async def test_holding_a_refusals_body(tasks: Tasks, how: str, *, uploading: bool) -> None:
    async def play(wire: UpstreamWire) -> None:
        head = await wire.head()
        if head.method == "POST" and not uploading:
            await wire.body(head)
        half = AT_THE_DOOR.encode()[:20]
        await wire.send(b"HTTP/1.1 401 No\r\nContent-Length: 63\r\n\r\n%b" % half)
        await swallow(wire)

    async with StandIns() as stand_ins, ScriptedUpstream(play, [answer()] * 9) as upstream:
        to_it = {
            "routes": {"eko": {"upstream": upstream.url}},
            "credentials": {"eko": {"origins": [upstream.url]}},
        }
        async with proxy_in_front(stand_ins, to_it) as front, raw_client(front.eko) as client:
            if uploading:
                await client.send(request("POST", "/ekoapi/v3/x", [JSON, *CHUNKED]), PIECE)
            else:
                await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
            await until(lambda: any(each.reader.head for each in front.route("eko").pool._all))
            await settle()
            assert bool(uploads()) is uploading
            tasks.leave(client, how)
            await until(upstream.connections[0].lost.is_set)
            await nothing_stays(front, "eko")
            assert len(upstream.connections) == 1
            await left_in_peace(front, "eko")


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", HOW)
async def test_streaming_while_the_upstream_is_idle(tasks: Tasks, how: str, framing: str) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n".encode())
        await swallow(wire)

    async with playing(play) as (upstream, proxy, client):
        await client.send(request("GET", "/"))
        await client.rest_of(b"hello\r\n")
        tasks.leave(client, how)
        await until(upstream.connections[0].lost.is_set)
        await left_in_peace(proxy)


@pytest.mark.parametrize("how", HOW)
async def test_streaming_while_the_caller_takes_no_more(tasks: Tasks, how: str) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"x" * PLENTY))

    async with playing(play) as (_, proxy, client):
        await client.send(request("GET", "/"))
        await client.head()
        # Bytes that nobody takes wait in the connection upstream, which then reads no more.
        await until(lambda: any(each._paused_reading for each in proxy.route("plain").pool._all))
        tasks.leave(client, how)
        if how == "close":
            client.drop()  # asyncio would send FIN only once all has been read
        await left_in_peace(proxy)


# Every moment there is: a whole exchange, cancelled at its first wait, at its second, and so on.


class Cancelling:
    """Cancels the next request at its `at`-th wait, at one of the moments of `stepping`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.moment = 0, ""
        self.last: Cancelled | None = None
        handle = Forwarder.handle

        async def watched(self_: Forwarder, asked: Caller) -> None:
            if not self.at:
                await handle(self_, asked)
                return
            at, self.at = self.at, 0
            self.last = Cancelled(handle(self_, asked), at, self.moment)
            await self.last

        monkeypatch.setattr(Forwarder, "handle", watched)

    def arm(self, at: int, moment: str) -> None:
        self.at, self.moment = at, moment

    @property
    def waits(self) -> int:
        """Count the waits of the last request."""
        return self.last.waits if self.last else 0


async def in_pieces(client: RawClient, *pieces: bytes) -> None:
    """Send in several packets, and read whatever comes until it ends."""
    with contextlib.suppress(Broken, ConnectionError):
        for piece in pieces:
            await client.send(piece)
            await settle(8)
        await client.answer()


async def pay(client: RawClient) -> None:
    whole = request("POST", PAYBILL, [JSON], PAYMENT)
    await in_pieces(client, whole[:-30], whole[-30:-10], whole[-10:])


async def upload(client: RawClient) -> None:
    await in_pieces(client, request("POST", "/", CHUNKED), PIECE, PIECE, LAST)


async def exchanges(
    proxy: Proxy,
    name: str,
    act: Callable[[RawClient], Coroutine[Any, Any, None]],
    *,
    cancelling: Cancelling,
    moment: str,
) -> AsyncIterator[int]:
    """Run one exchange after another, each cancelled a wait later, until one ends by itself.

    The number is that of the wait, the body of the loop is run before the exchange.
    """
    for at in range(1, 200):
        yield at
        cancelling.arm(at, moment)
        async with raw_client(proxy.url(name)) as client:
            await act(client)
        await nothing_stays(proxy, name)
        if cancelling.waits < at:
            assert at > 2
            return
    pytest.fail("no exchange ended by itself")


@pytest.fixture
def cancelling(monkeypatch: pytest.MonkeyPatch) -> Cancelling:
    return Cancelling(monkeypatch)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_payment_cancelled_anywhere(
    front: Running, cancelling: Cancelling, moment: str
) -> None:
    """Turned away at the door first, so that it is sent again; never more often than that."""
    eko = front.stand_ins.eko
    async for _ in exchanges(front, "eko", pay, cancelling=cancelling, moment=moment):
        assert len(eko.payments) <= 1
        front.let_deadlines_pass()  # so that it has to dial
        eko.reset()
        eko.faults.add(Fault("POST /", status=401, body=AT_THE_DOOR))
    assert len(eko.payments) == 1
    assert eko.arrived == 2


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_upload_cancelled_anywhere(
    monkeypatch: pytest.MonkeyPatch, cancelling: Cancelling, moment: str
) -> None:
    """With a token that is refused, so that it waits for another one."""
    monkeypatch.setattr(tokens, "_FORCED_BURST", 1000)
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as front:
        async for _ in exchanges(front, "eka", upload, cancelling=cancelling, moment=moment):
            await ask(front.eka, "GET", "/x")  # has the token that was on its way
            front.let_deadlines_pass()
            stand_ins.eka.revoke_all()
        assert front.lines()[-1]["attempts"] == 2


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_stream_cancelled_anywhere(
    cancelling: Cancelling, moment: str, *, early: bool
) -> None:
    """Answered after the upload, or while it still runs and then is given up."""

    async def play(wire: UpstreamWire) -> None:
        head = await wire.head()
        if not early:
            await wire.body(head)
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (PIECE, PIECE, LAST):
            await settle(8)
            await wire.send(piece)
        await wire.rest()

    async def begin(client: RawClient) -> None:
        await in_pieces(client, request("POST", "/", CHUNKED), PIECE)

    act = begin if early else upload
    async with ScriptedUpstream(play) as upstream, plain_proxy(upstream.url) as proxy:
        async for _ in exchanges(proxy, "plain", act, cancelling=cancelling, moment=moment):
            proxy.let_deadlines_pass()
        assert (proxy.lines()[-1]["status"], proxy.lines()[-1]["code"]) == (200, None)


# A storm.


class Storm:
    """Many callers at once; most leave at some moment, each by its own dice."""

    CALLERS = 300

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a schedule, no secret
        self.answers: list[Message] = []

    async def run(self, url: str, script: Callable[[int, random.Random], list[bytes]]) -> None:
        callers = [
            self._call(url, script(n, self.random), self.random.randrange(1 << 30))
            for n in range(self.CALLERS)
        ]
        async with asyncio.timeout(PATIENCE * 3):
            await asyncio.gather(*callers)

    async def _call(self, url: str, pieces: list[bytes], seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - as above
        await settle(dice.randrange(60))
        # One in four stays to the end.
        leaves_at = dice.randrange(len(pieces) + 5) if dice.random() < 0.75 else None
        async with raw_client(url) as client:
            with contextlib.suppress(Broken, ConnectionError):
                for step, piece in enumerate(pieces):
                    if step == leaves_at:
                        break
                    await client.send(piece)
                    await settle(dice.randrange(12))
                else:
                    if leaves_at is None:
                        self.answers.append(await client.answer())
                    elif dice.random() < 0.5:
                        await client.some(100)  # a part of the answer
            await settle(dice.randrange(30))
            dice.choice([client.close, client.reset, client.drop])()


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_uploads_and_downloads(seed: int) -> None:
    async def play(wire: UpstreamWire) -> None:
        dice = random.Random(len(upstream.connections) + seed)  # noqa: S311 - as above
        while True:
            head, early = await wire.head(), dice.random() < 0.2
            if not early:
                await wire.body(head)
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(dice.randrange(6)):
                await settle(dice.randrange(8))
                await wire.send(PIECE)
            await wire.send(LAST)
            if early:
                return  # what is left of the body is not the next request

    def script(_: int, dice: random.Random) -> list[bytes]:
        if dice.random() < 0.4:
            return [request("GET", "/")]
        pieces = dice.randrange(1, 6)
        if dice.random() < 0.5:
            return [request("POST", "/", CHUNKED), *[PIECE] * pieces, LAST]
        length = [("Content-Length", str(pieces * len(PIECE)))]
        return [request("PUT", "/", length), *[PIECE] * pieces]

    storm = Storm(seed)
    async with ScriptedUpstream(play) as upstream, plain_proxy(upstream.url) as proxy:
        proxy.route("plain").pool._limit = 20
        await storm.run(proxy.plain, script)
        await nothing_stays(proxy, "plain")
        assert sum(proxy.route("plain").pool.counts().values()) <= 20
        assert len(storm.answers) > 20
        assert (await ask(proxy.plain, "GET", "/")).status == 200


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_payments_makes_none_twice(front: Running, seed: int) -> None:
    eko, dice = front.stand_ins.eko, random.Random(seed)  # noqa: S311 - as above
    front.route("eko").pool._limit = 20
    for _ in range(60):
        kind = dice.choice(["status", "close_before_head", "reset_before_head", "reset_mid_body"])
        done = kind != "status" and dice.random() < 0.5
        status = 401 if kind == "status" else 200
        fault = Fault("POST /", kind=kind, status=status, body=AT_THE_DOOR, after_processing=done)  # type: ignore[arg-type]  # one of the kinds
        eko.faults.add(fault)

    def script(number: int, dice: random.Random) -> list[bytes]:
        body = PAYMENT[:-1] + b', "client_ref_id": "payment-%d"}' % number
        whole = request("POST", PAYBILL, [JSON], body)
        cuts = sorted(dice.sample(range(1, len(whole)), dice.randrange(4)))
        return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    storm = Storm(seed)
    await storm.run(front.eko, script)
    await nothing_stays(front, "eko")
    assert eko.payments
    assert not any(each.duplicate for each in eko.payments)
    assert {got.status for got in storm.answers} <= {200, 401, 502}
    assert (await ask(front.eko, "GET", "/ekoapi/v3/x")).status == 200
