"""Limits on what callers may hold: each is answered in plain words, counted, can be reloaded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.limits import Bounds, Limits
from tests.support import (
    PAYBILL,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    raw_client,
    request,
    settle,
    until,
)

if TYPE_CHECKING:
    from proxy.server import CallerConnection
    from tests.support import Message, Proxy, RawClient, Running, UpstreamWire

SMALL = {"limits": {"header_bytes": 4096, "header_fields": 20, "request_line": 1024}}
LONG_AGO = float("inf")


def counted(proxy: Proxy) -> dict[str, int]:
    return dict(proxy.app._metrics.limits)


def connection(proxy: Proxy) -> CallerConnection:
    (listener,) = proxy.app._listeners.values()
    (only,) = listener._callers
    return only


def let_pass(proxy: Proxy, seconds: float) -> None:
    """Have the listeners act as they would in so many seconds."""
    for listener in proxy.app._listeners.values():
        listener.sweep(asyncio.get_running_loop().time() + seconds)


def assert_too_large(got: Message, limit: str) -> None:
    assert (got.status, got.get("X-Ekeko-Error")) == (431, "header_too_large")
    assert got.get("Content-Type") == "application/problem+json"
    assert got.get("Connection") == "close"
    assert f"limits.{limit} is reached" in got.json()["detail"]


async def echo(wire: UpstreamWire) -> None:
    while True:
        got = await wire.request()
        await wire.send(answer(got.target.encode()))


# Sizes.


def head_of(size: int, target: str = "/") -> bytes:
    """Write a request whose head has so many bytes, in fields of at most 1000."""
    bare = len(request("GET", target))
    names = [f"X-{number}" for number in range((size - bare) // 1000 + 1)]
    share, more = divmod(size - bare - sum(len(name) + 4 for name in names), len(names))
    fields = [(name, "a" * (share + (n < more))) for n, name in enumerate(names)]
    head = request("GET", target, fields)
    assert len(head) == size
    return head


async def test_a_head_may_have_as_many_bytes_as_configured_and_no_more() -> None:
    async with ScriptedUpstream(echo) as upstream, plain_proxy(upstream.url, SMALL) as proxy:
        async with raw_client(proxy.plain) as client:
            await client.send(head_of(4096))
            assert (await client.answer()).status == 200
            await client.send(head_of(4097))
            assert_too_large(await client.answer(), "header_bytes")
            assert await client.rest() == b""
        assert len(upstream.requests) == 1
        assert counted(proxy) == {"header_bytes": 1}
        assert [(x["status"], x["code"]) for x in proxy.lines()] == [
            (200, None),
            (431, "header_too_large"),
        ]


async def test_a_head_is_refused_as_soon_as_it_is_too_large() -> None:
    """It never comes to its end: what has been heard by then is all that is ever held."""
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(head_of(100_000)[:4096])
        await until(lambda: connection(proxy)._beyond == 4096)
        assert client.received == b""
        await client.send(b"a")
        assert_too_large(await client.answer(), "header_bytes")
        assert upstream.connections == []


async def test_a_head_of_megabytes_is_refused_though_its_caller_goes_on_sending() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        fields = [(f"X-{number}", "a" * 16_000) for number in range(99)]
        await client.send(request("GET", "/", fields))
        assert_too_large(await client.answer(), "header_bytes")
        assert upstream.connections == []
        assert counted(proxy) == {"header_bytes": 1}


async def test_the_size_of_a_body_in_the_same_packet_does_not_matter() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        body = b"GET / HTTP/1.1\r\n" * 5000
        for _ in range(3):
            await client.send(request("POST", "/", body=body) * 2)
            for _ in range(2):
                assert (await client.answer()).status == 200
        chunked = request("POST", "/", [("Transfer-Encoding", "chunked")])
        await client.send(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert (await client.answer()).status == 200
        assert (await client.ask("GET", "/last")).status == 200
        assert [len(each.body) for each in upstream.requests] == [80_000] * 7 + [0]


@pytest.mark.parametrize("fields_in", ["one packet", "pieces"])
async def test_a_head_too_large_behind_others_costs_them_nothing(fields_in: str) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        data = request("PUT", "/1", body=b"x") + request("GET", "/2") + head_of(5000, "/3")
        step = len(data) if fields_in == "one packet" else 700
        for at in range(0, len(data), step):
            await client.send(data[at : at + step])
            await settle()
        await client.send(request("GET", "/4"))
        assert [(await client.answer()).body for _ in range(2)] == [b"/1", b"/2"]
        assert_too_large(await client.answer(), "header_bytes")
        assert await client.rest() == b""
        assert [each.target for each in upstream.requests] == ["/1", "/2"]


async def test_a_request_may_have_as_many_fields_as_configured_and_no_more() -> None:
    """aiohttp's parser counts them."""
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        fields = [(f"X-{number}", "a") for number in range(20)]
        assert (await client.ask("GET", "/", fields[1:])).status == 200  # with Host
        assert_too_large(await client.ask("GET", "/", fields), "header_fields")
        assert len(upstream.requests) == 1
        assert counted(proxy) == {"header_fields": 1}


async def test_a_target_may_be_as_long_as_configured_and_no_longer() -> None:
    """aiohttp's parser measures it, as it comes."""
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/".ljust(1024, "a"))).status == 200
        await client.send(b"GET /".ljust(1030, b"a"))
        assert_too_large(await client.answer(), "request_line")
        assert len(upstream.requests) == 1
        assert counted(proxy) == {"request_line": 1}


async def test_one_field_too_long_is_a_head_too_large() -> None:
    """aiohttp's parser measures it."""
    async with ScriptedUpstream(echo) as upstream, plain_proxy(upstream.url, SMALL) as proxy:
        got = await ask(proxy.plain, "GET", "/", [("X-A", "a" * 4096)])
        assert_too_large(got, "header_bytes")
        assert upstream.connections == []


async def test_sizes_of_a_new_configuration_hold_for_who_connects_then() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as before,
    ):
        assert (await before.ask("GET", "/")).status == 200
        await proxy.reload(SMALL)
        assert (await before.ask("GET", "/", [("X-A", "a" * 5000)])).status == 200
        got = await ask(proxy.plain, "GET", "/", [("X-A", "a" * 5000)])
        assert_too_large(got, "header_bytes")


# Behind a body.


def endless(what: str, number: int) -> bytes:
    """Write a piece of a chunked body that goes on without a byte of the body itself."""
    return b"a" * 500 if what == "chunk extension" else b"X-%d: %b\r\n" % (number, b"a" * 490)


@pytest.mark.parametrize("what", ["chunk extension", "trailer"])
async def test_framing_without_end_is_refused(what: str) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        start = b"2\r\nhi\r\n" + (b"1;" if what == "chunk extension" else b"0\r\n")
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]) + start)
        await until(lambda: upstream.connections)
        for number in range(8):
            await client.send(endless(what, number))
            await settle()
        assert counted(proxy) == {}
        with contextlib.suppress(ConnectionError):
            for number in range(8, 12):
                await client.send(endless(what, number))
        assert await client.rest() == b""  # a 4xx would deny that something was sent
        await until(lambda: counted(proxy) == {"header_bytes": 1})
        assert upstream.requests == []
        await until(proxy.lines)
        assert [line["code"] for line in proxy.lines()] == ["header_too_large"]


async def test_framing_without_end_is_answered_where_nothing_was_sent(front: Running) -> None:
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [("Transfer-Encoding", "chunked")]))
        await client.send(b"2\r\n{}\r\n1;")
        await until(lambda: front.app._budget.kept)
        for _ in range(100):
            await client.send(b"a" * 1000)
            await settle(1)
        assert_too_large(await client.answer(), "header_bytes")
        assert await client.rest() == b""
    assert front.stand_ins.eko.arrived == 0
    assert front.app._budget.kept == 0


async def test_a_body_of_small_chunks_is_not_taken_for_framing() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, SMALL) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]))
        for _ in range(100):
            await client.send(b"1;%b\r\na\r\n" % (b"x" * 200))
            await settle(1)
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert upstream.requests[0].body == b"a" * 100


# Where heads begin, so that each has its clock and its bound.

REQUESTS = [
    request("GET", "/get"),
    request("GET", "/blanks") + b"\r\n",
    request("GET", "/fields", [("X-A", "\r\n"[:0]), ("X-B", " b")]),
    request("POST", "/empty", [("Content-Length", "0")]),
    request("POST", "/body", body=b"hello"),
    request("POST", "/ends", body=b"hello\r\n\r\n"),
    request("POST", "/request", body=request("GET", "/hidden")),
    request("POST", "/large", body=b"\r\n\r\n" * 30_000),
]
PART = b"GET /part HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n\r"


@pytest.mark.parametrize("seed", range(40))
async def test_what_has_come_of_the_next_head_is_known_however_the_bytes_come(seed: int) -> None:
    """aiohttp's parser does not tell."""
    choose = random.Random(seed)  # noqa: S311 - not a secret
    requests = choose.choices(REQUESTS, k=choose.choice([1, 1, 2, 5, 50]))
    part = PART[: choose.choice([0, 0, 1, 4, 40, len(PART)])]
    data = b"".join(requests).rstrip(b"\r\n" if requests[-1] == REQUESTS[1] else b"")
    data += b"\r\n\r\n" if requests[-1] == REQUESTS[1] else b""
    data += part
    cuts = sorted(choose.choices(range(len(data)), k=choose.choice([0, 1, 3, 10])))
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        reading = asyncio.create_task(read_answers(client, len(requests)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            await client.send(data[start:end])
            await settle(choose.choice([0, 1, 30]))
        assert await reading == [each.split(b" ")[1] for each in requests]
        await until(lambda: connection(proxy)._waiter)
        await settle()
        assert connection(proxy)._beyond == len(part)
        let_pass(proxy, 11)
        if part:
            assert (await client.answer()).status == 408
        else:
            assert (await client.ask("GET", "/on")).body == b"/on"


async def read_answers(client: RawClient, count: int) -> list[bytes]:
    return [(await client.answer()).body for _ in range(count)]


@pytest.mark.parametrize("first", [request("GET", "/"), request("POST", "/", body=b"hello")])
async def test_a_part_of_a_head_in_the_packet_of_a_request_has_as_much_time_as_any(
    first: bytes,
) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(first + b"GET /secon")
        assert (await client.answer()).status == 200
        await until(lambda: connection(proxy)._waiter)
        let_pass(proxy, 9)
        assert counted(proxy) == {}
        let_pass(proxy, 11)
        assert_too_late(await client.answer())
        assert len(upstream.requests) == 1


async def test_a_request_that_came_whole_is_answered_whatever_stands_behind_it() -> None:
    body = b"z" * 200_000
    asked = request("POST", "/", body=body) + head_of(100_000)[:80_000]
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(asked[:150_000])
        await until(lambda: upstream.requests or upstream.connections)
        await client.send(asked[150_000:])
        assert (await client.answer()).status == 200
        assert_too_large(await client.answer(), "header_bytes")


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("first", [request("GET", "/"), request("POST", "/", body=b"hello")])
async def test_blank_lines_between_requests_are_no_part_of_one(first: bytes, blank: bytes) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(blank + first + blank)
        assert (await client.answer()).status == 200
        await until(lambda: connection(proxy)._waiter)
        await client.send(blank)
        await settle(10)
        let_pass(proxy, 11)
        assert connection(proxy).is_idle
        await client.send(first + blank + first)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert counted(proxy) == {}


def assert_too_late(got: Message) -> None:
    assert (got.status, got.get("X-Ekeko-Error")) == (408, "request_timeout")
    assert got.get("Connection") == "close"
    assert "limits.header_timeout" in got.json()["detail"]


async def test_a_head_that_is_late_is_answered_logged_and_counted() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET /secret-canary HTTP/1.1\r\n")
        await until(lambda: connection(proxy)._heard)
        let_pass(proxy, 11)
        assert_too_late(await client.answer())
        await client.send(b"Host: localhost\r\n\r\n")  # too late for anything
        assert await client.rest() == b""
        assert counted(proxy) == {"header_timeout": 1}
        (line,) = proxy.lines()
        assert (line["status"], line["code"], line["caller"]) == (
            408,
            "request_timeout",
            "127.0.0.1",
        )
        assert "canary" not in str(line)
        assert upstream.connections == []


async def test_who_says_nothing_at_all_is_let_go_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await until(lambda: proxy.app._limits.taken)
        let_pass(proxy, 11)
        assert await client.rest() == b""
        assert counted(proxy) == {"header_timeout": 1}
        proxy.app._limits.tell(0)
    assert "limits.header_timeout was reached: connections turned away: 1" in caplog.text


async def test_a_refused_caller_that_goes_on_sending_is_let_go_in_the_end() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
        await client.send(b"x" * 1000)
        let_pass(proxy, 9)
        assert proxy.app._limits.taken == 1
        let_pass(proxy, 11)
        await until(lambda: not proxy.app._limits.taken)


async def test_a_refused_caller_does_not_hold_up_the_end() -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        proxy.app.stop()
        async with asyncio.timeout(5):
            await proxy.app.run()


# Bodies.


async def test_a_body_too_large_is_counted() -> None:
    change = {"routes": {"plain": {"max_body": "1KiB"}}}
    async with ScriptedUpstream(echo) as upstream, plain_proxy(upstream.url, change) as proxy:
        got = await ask(proxy.plain, "POST", "/", body=b"x" * 1025)
        assert (got.status, got.get("X-Ekeko-Error")) == (413, "body_too_large")
        assert counted(proxy) == {"max_body": 1}


# Connections.


async def test_connections_turned_away_are_counted_and_logged_once_for_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, {"limits": {"connections": 1}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/")).status == 200
        for _ in range(5):
            async with raw_client(proxy.plain) as other:
                got = await other.answer()
                assert (got.status, got.get("X-Ekeko-Error")) == (503, "overloaded")
        assert counted(proxy) == {"connections": 5}
        proxy.app._limits.tell(asyncio.get_running_loop().time() + 11)
    assert caplog.text.count("limits.connections was reached") <= 2  # a tick may have told of some


def test_a_flood_is_logged_in_one_line_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    noted: list[str] = []
    limits = Limits(Bounds(connections=0), noted.append)
    for second in range(30):
        for _ in range(1000):
            assert limits.take("somebody") is not None
        limits.tell(second)
    assert len(noted) == 30_000
    assert [record.args for record in caplog.records] == [
        ("connections", 1000),
        ("connections", 10_000),
        ("connections", 10_000),
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_callers_that_have_gone_are_not_remembered() -> None:
    limits = Limits(Bounds(per_caller=2), lambda _: None)
    for number in range(1000):
        for _ in range(2):
            assert limits.take(f"10.0.0.{number}") is None
        assert limits.take(f"10.0.0.{number}") is not None
        for _ in range(2):
            limits.give_back(f"10.0.0.{number}")
    assert (limits.taken, len(limits._held)) == (0, 0)


async def test_one_caller_may_hold_its_own_share_and_no_more() -> None:
    change = {"limits": {"connections_per_caller": 2}}
    async with ScriptedUpstream(echo) as upstream, plain_proxy(upstream.url, change) as proxy:
        async with raw_client(proxy.plain) as one, raw_client(proxy.plain) as two:
            for client in (one, two):
                assert (await client.ask("GET", "/")).status == 200
            async with raw_client(proxy.plain) as third:
                got = await third.answer()
                assert got.json()["detail"] == "limits.connections_per_caller is reached."
                assert got.get("Retry-After") == "1"
        await until(lambda: not proxy.app._limits.taken)
        assert (await ask(proxy.plain, "GET", "/")).status == 200
        assert counted(proxy) == {"connections_per_caller": 1}
        await proxy.reload({"limits": {"connections_per_caller": None}})
        async with raw_client(proxy.plain), raw_client(proxy.plain):
            assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_at_a_unix_socket_a_user_is_a_caller_whatever_its_processes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        change = {
            "routes": {"plain": {"listen": f"unix:{Path(folder) / 's'}"}},
            "limits": {"connections_per_caller": 1},
        }
        async with (
            ScriptedUpstream(echo) as upstream,
            plain_proxy(upstream.url, change) as proxy,
            raw_client(proxy.plain) as one,
        ):
            assert (await one.ask("GET", "/")).status == 200
            assert connection(proxy).who == f"uid={os.getuid()}"
            assert (await ask_on_another(proxy)).status == 503


async def ask_on_another(proxy: Proxy) -> Message:
    async with raw_client(proxy.plain) as client:
        return await client.answer()


# Requests.


async def test_a_route_serves_so_many_requests_at_one_time_and_no_more() -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer())

    change = {"routes": {"plain": {"max_in_flight": 2}}}
    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, change) as proxy,
        raw_client(proxy.plain) as one,
        raw_client(proxy.plain) as two,
        raw_client(proxy.plain) as third,
    ):
        for client in (one, two):
            await client.send(request("GET", "/"))
        await until(lambda: len(upstream.requests) == 2)
        got = await third.ask("GET", "/")
        assert (got.status, got.get("X-Ekeko-Error")) == (503, "overloaded")
        assert got.get("Retry-After") == "1"
        assert "max_in_flight" in got.json()["detail"]
        assert counted(proxy) == {"max_in_flight": 1}
        may_answer.set()
        assert [(await client.answer()).status for client in (one, two)] == [200, 200]
        assert (await third.ask("GET", "/")).status == 200
        assert len(upstream.requests) == 3
