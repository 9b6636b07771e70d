"""Connections that switch protocols: WebSocket by real peers, and others byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from tests.support import (
    ScriptedUpstream,
    answer,
    plain_proxy,
    raw_client,
    request,
    settle,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support import Message, Proxy, RawClient, Running, UpstreamWire, Wire

WISH = [("Connection", "Upgrade"), ("Upgrade", "test/1")]
SWITCHED = (
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: Test/1\r\nX-Theirs: y\r\n\r\n"
)
PIECE = bytes(range(256)) * 256  # 64 KiB
MIB = 1024 * 1024


def switching(
    play: Callable[[UpstreamWire], Awaitable[None]], more: bytes = b""
) -> Callable[[UpstreamWire], Awaitable[None]]:
    async def switch(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED + more)
        await play(wire)

    return switch


async def to_the_end(wire: UpstreamWire) -> None:
    await wire.rest()
    wire.lost.set()


@contextlib.asynccontextmanager
async def tunnel(
    play: Callable[[UpstreamWire], Awaitable[None]], more: bytes = b""
) -> AsyncIterator[tuple[ScriptedUpstream, Proxy, RawClient, Message]]:
    async with (
        ScriptedUpstream(switching(play, more)) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/talk", WISH))
        yield upstream, proxy, client, await client.head()


# WebSocket, by aiohttp's server and client.


async def _echo(asked: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",))
    await socket.prepare(asked)
    await socket.send_str(asked.headers.get("Authorization", "none"))
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


@contextlib.asynccontextmanager
async def websocket_upstream() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_get("/talk", _echo)
    server = TestServer(app)
    await server.start_server()
    try:
        yield server
    finally:
        await server.close()


async def test_a_websocket_talks_with_the_credential_attached() -> None:
    async with websocket_upstream() as server:
        url = f"http://127.0.0.1:{server.port}"
        bearer = {
            "routes": {"plain": {"credential": "eka"}},
            "credentials": {"eka": {"kind": "bearer", "token": "a.b.c", "origins": [url]}},
        }
        async with plain_proxy(url, bearer) as proxy, aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{proxy.plain}/talk", protocols=("chat",)) as socket:
                assert socket.protocol == "chat"
                assert await socket.receive_str() == "Bearer a.b.c"
                await socket.send_str("namaste")
                assert await socket.receive_str() == "namaste"
                await socket.send_bytes(PIECE * 20)
                assert await socket.receive_bytes() == PIECE * 20
                await socket.ping()
            assert socket.close_code == 1000
            await until(proxy.lines)
            (line,) = proxy.lines()
            assert (line["status"], line["code"], line["path"]) == (101, None, "/{}")
            assert line["bytes_in"] > len(PIECE) * 20
            assert line["bytes_out"] > len(PIECE) * 20


async def test_a_websocket_that_the_upstream_refuses_is_an_ordinary_answer() -> None:
    async with websocket_upstream() as server:
        url = f"http://127.0.0.1:{server.port}"
        async with plain_proxy(url) as proxy, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{proxy.plain}/elsewhere")
            assert refused.value.status == 404


async def test_a_websocket_waits_for_a_renewed_token(front: Running) -> None:
    wish = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    async with raw_client(front.eka) as client:
        await client.ask("GET", "/dr/v1/business/entities")
        front.stand_ins.eka.expire_all()
        await client.ask("GET", "/dr/v1/business/entities", wish)
    assert (front.lines()[-1]["status"], front.lines()[-1]["attempts"]) == (200, 2)


@pytest.mark.parametrize(
    ("fields", "change", "code"),
    [
        ([("Origin", "https://evil.example")], {}, "origin_not_allowed"),
        ([("Sec-Fetch-Site", "cross-site")], {}, "origin_not_allowed"),
        ([], {"routes": {"plain": {"allow": ["GET /other"]}}}, "not_allowed"),
    ],
)
async def test_policy_speaks_first(
    fields: list[tuple[str, str]], change: dict[str, object], code: str
) -> None:
    async with (
        ScriptedUpstream(switching(to_the_end)) as upstream,
        plain_proxy(upstream.url, change) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/talk", [*WISH, *fields])
        assert got.get("X-Ekeko-Error") == code
        assert upstream.requests == []


# Any protocol.


async def test_both_sides_hear_of_the_switch_and_what_was_said_with_it() -> None:
    async def play(wire: UpstreamWire) -> None:
        assert await wire.rest_of(b"hello\n") == b"hello\n"
        await wire.send(b"bye\n")

    async with tunnel(play, b"welcome\n") as (upstream, proxy, client, head):
        assert (head.status, head.get("Connection"), head.get("Upgrade")) == (
            101,
            "Upgrade",
            "test/1",
        )
        assert head.get("X-Theirs") == "y"
        assert head.get("X-Request-Id")
        asked = upstream.requests[0]
        assert (asked.get("Connection"), asked.get("Upgrade")) == ("Upgrade", "test/1")
        assert await client.rest_of(b"\n") == b"welcome\n"
        await client.send(b"hello\n")
        assert await client.rest() == b"bye\n"  # and the end
        await until(proxy.lines)
        (line,) = proxy.lines()
        assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 6, 12)
        assert proxy.route("plain").pool.counts() == {"active": 0, "idle": 0, "opening": 0}


async def test_the_callers_last_words_arrive() -> None:
    async with tunnel(to_the_end) as (upstream, proxy, client, _):
        await client.send(b"goodbye")
        client.close()
        await until(upstream.connections[0].lost.is_set)
        assert upstream.connections[0].received.endswith(b"goodbye")
        await until(proxy.lines)
        assert proxy.lines()[0]["code"] == "caller_closed"
        await until(lambda: not proxy.route("plain").pool._all)


async def test_an_upstream_that_breaks_off_breaks_the_caller_off() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.some()
        wire.reset()

    async with tunnel(play) as (_, proxy, client, _):
        await client.send(b"x")
        assert await client.rest() == b""
        await until(proxy.lines)
        assert proxy.lines()[0]["code"] == "upstream_closed"


async def test_silence_on_both_sides_ends_it() -> None:
    async with tunnel(to_the_end) as (_, proxy, client, _):
        await settle()
        proxy.let_deadlines_pass()
        assert await client.rest() == b""
        await until(proxy.lines)
        assert proxy.lines()[0]["code"] == "upstream_timeout"


async def pour(wire: Wire, counted: list[int]) -> None:
    for _ in range(64 * MIB // len(PIECE)):
        await wire.send(PIECE)
        counted[0] += len(PIECE)


async def standstill(counted: list[int]) -> None:
    before, same = -1, 0
    while same < 20:
        await settle()
        await asyncio.sleep(0.002)
        same = same + 1 if counted[0] == before else 0
        before = counted[0]


async def test_the_caller_is_heard_no_faster_than_the_upstream_takes() -> None:
    may_read, counted = asyncio.Event(), [0]

    async def play(wire: UpstreamWire) -> None:
        await may_read.wait()
        while await wire.some(MIB):
            pass

    async with tunnel(play) as (_, _, client, _):
        pouring = asyncio.create_task(pour(client, counted))
        await standstill(counted)
        assert counted[0] < 24 * MIB
        may_read.set()
        await pouring


async def test_the_upstream_is_heard_no_faster_than_the_caller_takes() -> None:
    counted = [0]

    async def play(wire: UpstreamWire) -> None:
        await pour(wire, counted)

    async with tunnel(play) as (_, _, client, _):
        await standstill(counted)
        assert counted[0] < 24 * MIB
        assert len(await client.rest()) == 64 * MIB


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_caller_that_does_not_wait_for_the_switch_is_dropped(*, at_once: bool) -> None:
    may_switch = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_switch.wait()
        await wire.send(SWITCHED)
        await to_the_end(wire)

    early = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/talk", WISH) + (early if at_once else b""))
        await until(lambda: upstream.requests)
        if not at_once:
            await client.send(early)
            (listener,) = proxy.app._listeners.values()
            (caller,) = listener._callers
            await until(lambda: caller._behind)
        may_switch.set()
        assert b"101" not in await client.rest()
        assert len(upstream.requests) == 1


async def test_what_stands_behind_a_declined_upgrade_is_not_lost_in_silence() -> None:
    async with (
        ScriptedUpstream([answer(b"no"), answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/one", WISH) + request("GET", "/two"))
        assert (await client.answer()).body == b"no"
        assert await client.rest() == b""  # aiohttp's parser has dropped it: the caller has to ask


async def test_a_websocket_caller_may_speak_early() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED.replace(b"Test/1", b"websocket"))
        assert await wire.rest_of(b"early") == b"early"
        await wire.send(b"heard")

    wish = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")]
    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/talk", wish) + b"early")
        assert (await client.head()).status == 101
        assert await client.rest() == b"heard"


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("GET", [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")], b""),
        ("GET", [("Connection", "Upgrade"), ("Upgrade", "H2C")], b""),
        ("GET", [("Connection", "Upgrade"), ("Upgrade", "TLS/1.2")], b""),
        ("GET", [("Connection", "Upgrade"), ("Upgrade", "HTTP/2.0")], b""),
        ("GET", [("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")], b""),
        ("GET", [("Connection", "keep-alive"), ("Upgrade", "test/1")], b""),
        ("POST", WISH, b"a body"),
    ],
)
async def test_what_cannot_be_followed_goes_on_as_an_ordinary_request(
    method: str, fields: list[tuple[str, str]], body: bytes
) -> None:
    async with (
        ScriptedUpstream([answer(b"no"), answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask(method, "/", fields, body)
        assert got.body == b"no"
        assert (upstream.requests[0].get("Upgrade"), upstream.requests[0].get("Connection")) == (
            None,
            None,
        )
        if body:
            assert got.get("Connection") == "close"
        else:
            assert (await client.ask("GET", "/")).body == b"next"


@pytest.mark.parametrize("protocol", ["websocket", "test/1"])
async def test_an_upgrade_that_is_declined_leaves_an_ordinary_connection(protocol: str) -> None:
    wish = [("Connection", "Upgrade"), ("Upgrade", protocol)]
    async with (
        ScriptedUpstream([answer(b"no"), answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/", wish)).body == b"no"
        assert (await client.ask("GET", "/")).body == b"next"


async def test_what_stands_behind_a_declined_websocket_is_the_next_request() -> None:
    wish = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    async with (
        ScriptedUpstream([answer(b"no"), answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/one", wish) + request("GET", "/two"))
        assert (await client.answer()).body == b"no"
        assert (await client.answer()).body == b"next"
        assert [each.target for each in upstream.requests] == ["/one", "/two"]


@pytest.mark.parametrize(
    "found",
    [
        SWITCHED.replace(b"Test/1", b"h2c"),
        SWITCHED.replace(b"Upgrade: Test/1\r\n", b""),
        SWITCHED.replace(b"Test/1", b"test/1\r\nUpgrade: test/1"),
    ],
)
async def test_a_switch_to_something_else_is_no_answer(found: bytes) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(found)
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/talk", WISH)
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_protocol_error")


async def test_a_payment_never_leaves_http() -> None:
    async with ScriptedUpstream([answer(b"paid")]) as upstream:
        eko = {
            "routes": {"plain": {"credential": "eko"}},
            "credentials": {
                "eko": {
                    "kind": "eko",
                    "environment": "staging",
                    "developer_key": "d",
                    "access_key": "a",
                    "origins": [upstream.url],
                }
            },
        }
        async with plain_proxy(upstream.url, eko) as proxy, raw_client(proxy.plain) as client:
            target = "/ekoapi/v3/customer/payment/dmt-fino"
            assert (await client.ask("POST", target, WISH)).body == b"paid"
            assert upstream.requests[0].get("Upgrade") is None


@pytest.mark.parametrize("first", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_what_stands_behind_the_body_of_such_a_request_is_not_lost_in_silence(
    first: str,
) -> None:
    name, _, value = first.partition(": ")
    body = b"hello" if name == "Content-Length" else b"5\r\nhello\r\n0\r\n\r\n"
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"three")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/one", [*WISH, (name, value)]))
        await until(lambda: upstream.connections)
        await client.send(body + request("GET", "/two"))
        assert (await client.answer()).body == b"one"
        assert await client.rest() == b""  # nothing that could pass for an answer to /two
        assert [each.target for each in upstream.requests] == ["/one"]


@pytest.mark.parametrize("at", [-3, -2, -1])
async def test_a_head_whose_end_comes_in_parts_may_switch(at: int) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED)

    wish = request("GET", "/talk", WISH)
    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(wish[:at])
        (listener,) = proxy.app._listeners.values()
        await until(lambda: any(caller._part for caller in listener._callers))
        await client.send(wish[at:])
        assert (await client.head()).status == 101


async def test_three_bytes_that_are_more_than_the_heads_end_are_noticed() -> None:
    async with (
        ScriptedUpstream([answer(b"no"), answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/one", WISH)[:-2])
        (listener,) = proxy.app._listeners.values()
        await until(lambda: any(caller._part for caller in listener._callers))
        await client.send(b"\r\nX")
        assert (await client.answer()).get("Connection") == "close"


@contextlib.asynccontextmanager
async def behind_a_slow_request(
    play: Callable[[UpstreamWire], Awaitable[None]], *behind: bytes
) -> AsyncIterator[tuple[ScriptedUpstream, RawClient]]:
    """Send a request, and each of the others in a packet of its own before the first answer."""
    may_answer = asyncio.Event()

    async def slow(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"first"))
        await play(wire)

    async with (
        ScriptedUpstream(slow) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        (listener,) = proxy.app._listeners.values()
        (caller,) = listener._callers
        for packet in behind:
            before = len(caller._messages)
            await client.send(packet)
            while len(caller._messages) == before:
                await settle()
        may_answer.set()
        assert (await client.answer()).body == b"first"
        yield upstream, client


WEBSOCKET = [("Connection", "Upgrade"), ("Upgrade", "websocket")]


async def test_a_websocket_may_stand_behind_another_request_and_speak_early() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED.replace(b"Test/1", b"websocket"))
        assert await wire.rest_of(b"early") == b"early"
        await wire.send(b"heard")

    wish = request("GET", "/talk", WEBSOCKET) + b"early"
    async with behind_a_slow_request(play, wish) as (_, client):
        assert (await client.head()).status == 101
        assert await client.rest() == b"heard"


async def test_a_switch_with_another_request_behind_it_is_not_made() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED)
        await to_the_end(wire)

    wishes = request("GET", "/one", WISH), request("GET", "/two", WEBSOCKET) + b"for two"
    async with behind_a_slow_request(play, *wishes) as (upstream, client):
        assert await client.rest() == b""
        assert b"for two" not in upstream.connections[0].received


async def test_what_is_dropped_behind_one_of_several_wishes_is_not_lost_in_silence() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"second"))
        await to_the_end(wire)

    wishes = request("GET", "/one", WISH) + request("GET", "/two"), request("GET", "/three", WISH)
    async with behind_a_slow_request(play, *wishes) as (_, client):
        got = await client.answer()
        assert (got.body, got.get("Connection")) == (b"second", "close")
        assert await client.rest() == b""


async def test_last_words_that_the_upstream_takes_slowly_arrive() -> None:
    may_read, said = asyncio.Event(), [0]

    async def play(wire: UpstreamWire) -> None:
        await may_read.wait()
        await to_the_end(wire)

    async with tunnel(play) as (upstream, proxy, client, _):
        (connection,) = proxy.route("plain").pool._all
        while not connection._paused_writing:
            await client.send(PIECE)
            said[0] += len(PIECE)
            await settle()
        client.close()
        (listener,) = proxy.app._listeners.values()
        await until(lambda: not listener._callers)
        may_read.set()
        await until(upstream.connections[0].lost.is_set)
        _, _, heard = bytes(upstream.connections[0].received).partition(b"\r\n\r\n")
        assert len(heard) == said[0]
        await until(lambda: not proxy.route("plain").pool._all)


async def test_a_switch_has_no_length() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(SWITCHED.replace(b"X-Theirs: y", b"Content-Length: 3"), b"welcome")

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/talk", WISH))
        head = await client.head()
        assert (head.status, head.get("Content-Length")) == (101, None)
        assert await client.rest() == b"welcome"


async def test_upgrade_is_a_list_and_may_stand_twice() -> None:
    offer = answer(b"ok", "Upgrade: h2c", "Connection: Upgrade", "Upgrade: foo")
    async with (
        ScriptedUpstream([offer]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/", [*WISH, ("Upgrade", "other")])
        assert (got.body, got.get("Upgrade")) == (b"ok", None)
        assert upstream.requests[0].get("Upgrade") is None
