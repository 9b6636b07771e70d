"""Where messages begin and end: lengths, chunks, HTTP/1.0, kept connections, 100-continue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support import (
    Broken,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    raw_client,
    request,
    until,
)

if TYPE_CHECKING:
    from tests.support import UpstreamWire

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_an_answer_to_head_keeps_its_length_and_has_no_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with (
        ScriptedUpstream([head, answer(b"next")], [answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("HEAD", "/")
        assert got.get("Content-Length") == "5000"
        assert (await client.ask("GET", "/")).body == b"next"
        assert [each.method for each in upstream.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 77\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(head: bytes) -> None:
    async with (
        ScriptedUpstream([head, answer(b"next")], [answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/")
        assert got.start.encode() == head.split(b"\r\n")[0]
        assert got.get("Content-Length") == ("77" if b"77" in head else None)
        assert (await client.ask("GET", "/")).body == b"next"


async def test_a_chunked_upload_arrives_chunked_and_whole() -> None:
    async with (
        ScriptedUpstream([answer(b"got it")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]))
        for piece in (b"5\r\nhello\r\n", b"1;ext=x\r\n \r\n", b"5\r\nworld\r\n", b"0\r\n\r\n"):
            await client.send(piece)
        assert (await client.answer()).body == b"got it"
        (got,) = upstream.requests
        assert got.body == b"hello world"
        assert got.all("Transfer-Encoding") == ["chunked"]
        assert got.get("Content-Length") is None


async def test_an_empty_chunked_upload_stays_chunked() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]), b"0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert b"\r\n\r\n0\r\n\r\n" in upstream.connections[0].received


async def test_trailers_of_an_upload_go_no_further() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(
            request("POST", "/", [("Transfer-Encoding", "chunked")]),
            b"2\r\nhi\r\n0\r\nAuthorization: Bearer canary\r\nX-Sum: 9\r\n\r\n",
        )
        assert (await client.answer()).status == 200
        assert upstream.requests[0].body == b"hi"
        assert b"canary" not in upstream.connections[0].received


async def test_a_chunked_answer_arrives_chunked_and_whole_without_its_trailers() -> None:
    chunks = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: canary\r\n\r\n"
    async with (
        ScriptedUpstream([CHUNKED + chunks, answer(b"next")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/")
        assert (got.body, got.all("Transfer-Encoding")) == (b"abcdefg", ["chunked"])
        assert b"canary" not in client.received
        assert (await client.ask("GET", "/")).body == b"next"
        assert len(upstream.connections) == 1


async def test_an_answer_that_ends_with_its_connection_arrives_whole() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for _ in range(2):
            assert (await client.ask("GET", "/")).body == b"all of it"
        assert len(upstream.connections) == 2


async def test_a_get_may_have_a_body() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "GET", "/", body=b'{"query": 1}')
        assert upstream.requests[0].body == b'{"query": 1}'


async def test_a_post_without_a_body_keeps_its_length_of_zero() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "POST", "/", [("Content-Length", "0")])
        assert upstream.requests[0].get("Content-Length") == "0"


# 100-continue.

EXPECTING = request("POST", "/", [("Expect", "100-continue"), ("Content-Length", "2")])


async def test_a_body_is_invited_once_policy_has_agreed() -> None:
    async with (
        ScriptedUpstream([answer(b"done")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(EXPECTING)
        assert (await client.head()).start == "HTTP/1.1 100 Continue"
        await client.send(b"hi")
        assert (await client.answer()).body == b"done"
        assert upstream.requests[0].body == b"hi"
        assert upstream.requests[0].get("Expect") is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"allow": ["GET /**"]}, 403), ({"max_body": "1KiB"}, 413), ({"prefix": "/p"}, 404)],
)
async def test_a_body_that_will_be_refused_is_not_invited(
    changes: dict[str, object], status: int
) -> None:
    big = EXPECTING.replace(b"Content-Length: 2", b"Content-Length: 2000")
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, {"routes": {"plain": changes}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(big)
        got = await client.head()
        assert got.status == status
        assert got.get("Connection") == "close"
        assert upstream.connections == []


async def test_a_body_that_came_unasked_needs_no_invitation() -> None:
    async with (
        ScriptedUpstream([answer(b"done")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(EXPECTING + b"hi")
        assert (await client.head()).status == 200


async def test_an_http_1_0_caller_is_never_sent_an_interim_answer() -> None:
    async with (
        ScriptedUpstream([answer(b"done")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0"))
        await until(lambda: upstream.connections)
        await client.send(b"hi")
        assert (await client.head()).status == 200


async def test_an_expectation_nobody_can_meet_is_refused() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        got = await ask(proxy.plain, "POST", "/", [("Expect", "a miracle")], b"x")
        assert (got.status, got.get("X-Ekeko-Error")) == (400, "bad_request")


# HTTP/1.0 callers.


async def test_an_http_1_0_caller_reads_an_unknown_length_to_the_end_of_the_connection() -> None:
    async with (
        ScriptedUpstream([CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        got = await client.answer()
        assert got.body == b"hello"
        assert got.get("Transfer-Encoding") is None
        assert got.get("Connection") == "close"
        assert await client.rest() == b""


async def test_an_http_1_0_caller_sees_that_an_answer_of_unknown_length_broke_off() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(CHUNKED + b"5\r\nhello\r\n")

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ConnectionResetError):  # an orderly end would be the body's
            await client.reader.read()


async def test_an_http_1_0_caller_keeps_its_connection_if_it_asks() -> None:
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        first = await client.answer()
        assert (first.body, first.get("Connection")) == (b"one", "keep-alive")
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        second = await client.answer()
        assert (second.body, second.get("Connection")) == (b"two", "close")
        assert await client.rest() == b""
        assert "HTTP/1.1" in upstream.requests[0].start


# Connections that are kept, or not.


async def test_connection_close_is_honoured_on_the_callers_side_alone() -> None:
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
    ):
        async with raw_client(proxy.plain) as client:
            got = await client.ask("GET", "/", [("Connection", "close")])
            assert (got.body, got.get("Connection")) == (b"one", "close")
            assert await client.rest() == b""
        assert (await ask(proxy.plain, "GET", "/")).body == b"two"
        assert len(upstream.connections) == 1


async def test_an_upstream_that_closes_costs_the_caller_nothing() -> None:
    closing = answer(b"bye", "Connection: close")
    async with (
        ScriptedUpstream([closing]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for _ in range(2):
            got = await client.ask("GET", "/")
            assert (got.body, got.get("Connection")) == (b"bye", None)
        assert len(upstream.connections) == 2


async def test_connections_are_reused_on_both_sides() -> None:
    async with (
        ScriptedUpstream([answer(b"%d" % n) for n in range(10)]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        bodies = [(await client.ask("POST", "/", body=b"x")).body for _ in range(10)]
        assert bodies == [b"%d" % n for n in range(10)]
        assert len(upstream.connections) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def play(wire: UpstreamWire) -> None:
        while True:
            got = await wire.request()
            await wire.send(answer(got.target.encode() + got.body))

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(*(request("PUT", f"/{n}", body=b"=%d" % n) for n in range(50)))
        bodies = [(await client.answer()).body for _ in range(50)]
        assert bodies == [b"/%d=%d" % (n, n) for n in range(50)]
        assert len(upstream.requests) == 50


async def test_callers_on_one_route_do_not_wait_for_one_another() -> None:
    slow_may_end = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        got = await wire.request()
        if got.target == "/slow":
            await slow_may_end.wait()
        await wire.send(answer(got.target.encode()))

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as slow,
    ):
        await slow.send(request("GET", "/slow"))
        await until(lambda: upstream.requests)
        assert (await ask(proxy.plain, "GET", "/quick")).body == b"/quick"
        slow_may_end.set()
        assert (await slow.answer()).body == b"/slow"


async def test_an_answer_shorter_than_its_length_breaks_the_callers_connection() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        with pytest.raises(Broken):
            await client.ask("GET", "/")
