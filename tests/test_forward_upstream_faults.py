"""What an upstream may do wrong, and that none of it reaches a caller as an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support import ScriptedUpstream, answer, ask, plain_proxy, raw_client, settle, until

if TYPE_CHECKING:
    from tests.support import UpstreamWire

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LEAK = answer(b"leaked")

NOT_HTTP = {
    "CL and TE": OK + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "TE and CL": OK + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two CLs that differ": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "two CLs alike": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "CL +5": OK + b"Content-Length: +5\r\n\r\nhello",
    "CL beyond all bounds": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "TE gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE identity": OK + b"Transfer-Encoding: identity\r\n\r\nx",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "bare CR": OK + b"X-A: b\rX-C: d\r\n\r\n",
    "obs-fold": OK + b"X-A: b\r\n continued\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "NUL in a value": OK + b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "a control character in the status line": b"HTTP/1.1 200 O\x07K\r\nContent-Length: 0\r\n\r\n",
    "a NUL in the status line": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in the status line": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "a control character in the status": b"HTTP/1.1 2\x0000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status line without end": b"HTTP/1.1 200 " + b"O" * 100_000,
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a control character in a value": OK + b"X-A: b\x01c\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": OK + b"X\x00A: b\r\nContent-Length: 0\r\n\r\n",
    "CL 0x5": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "TE chunked, identity": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unasked 101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a 1xx flood": b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + LEAK,
    "too many fields": OK + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + b"\r\n",
    "a head of 100 KiB": OK + b"X-A: %b\r\n\r\n" % (b"y" * 100_000),
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "something else": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_what_is_not_plainly_one_answer_is_a_502(name: str) -> None:
    """A second answer stands in the buffer: nobody gets it.

    httptools' parser (llhttp, strict) refuses CL with TE, doubled or odd lengths, line ends, names
    and values; `upstream.codec` all else, and CL with TE once more.
    """

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(NOT_HTTP[name] + LEAK)
        await wire.rest()

    async with (
        ScriptedUpstream(play, [answer(b"good")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/")
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_protocol_error")
        assert b"leaked" not in got.body
        assert (await client.ask("GET", "/")).body == b"good"
        assert len(upstream.connections) == 2


async def test_an_endless_head_is_given_up() -> None:
    sent = 0

    async def play(wire: UpstreamWire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(OK)
        while sent < 100_000_000:
            await wire.send(b"X-A: %b\r\n" % (b"y" * 1000))
            sent += 1000

    async with ScriptedUpstream(play) as upstream, plain_proxy(upstream.url) as proxy:
        got = await ask(proxy.plain, "GET", "/")
        assert got.get("X-Ekeko-Error") == "upstream_protocol_error"
        assert sent < 50_000_000


async def test_chunks_that_are_all_framing_are_given_up() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(OK + CHUNKED + b"\r\n")
        for _ in range(100_000):
            await wire.send(b"1;%b\r\nx\r\n" % (b"y" * 1000))

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = await client.rest()
        assert not got.endswith(b"0\r\n\r\n")
        assert len(got) < 10_000_000


async def test_interim_answers_are_swallowed() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with (
        ScriptedUpstream([interim + answer(b"final")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        got = await client.ask("GET", "/")
        assert (got.status, got.body, got.get("Link")) == (200, b"final", None)
        assert client.received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "extra",
    [LEAK, b"x", b"\r\n\r\nleaked", b"HTTP/1.1 ", b"HTTP/1.1 100 Continue\r\n\r\n" + LEAK],
)
@pytest.mark.parametrize("first", [answer(b"one"), OK + CHUNKED + b"\r\n3\r\none\r\n0\r\n\r\n"])
async def test_what_follows_an_answer_is_never_given_to_the_next_caller(
    first: bytes, extra: bytes
) -> None:
    async with (
        ScriptedUpstream([first + extra, LEAK], [answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
    ):
        assert (await ask(proxy.plain, "GET", "/1")).body == b"one"
        assert (await ask(proxy.plain, "GET", "/2")).body == b"two"
        assert len(upstream.connections) == 2


async def test_what_comes_unasked_on_an_idle_connection_ends_it() -> None:
    may_leak = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"one"))
        await may_leak.wait()
        await wire.send(LEAK)
        await wire.rest()

    async with (
        ScriptedUpstream(play, [answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
    ):
        assert (await ask(proxy.plain, "GET", "/1")).body == b"one"
        assert proxy.route("plain").pool.counts()["idle"] == 1
        may_leak.set()
        await until(lambda: proxy.route("plain").pool.counts()["idle"] == 0)
        assert (await ask(proxy.plain, "GET", "/2")).body == b"two"


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", OK + b"Content-Length: 6\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
    ],
)
async def test_a_body_where_there_can_be_none_is_never_given_to_the_next_caller(
    method: str, head: bytes
) -> None:
    async with (
        ScriptedUpstream([head + b"leaked", LEAK], [answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.ask(method, "/1")
        assert (await client.ask("GET", "/2")).body == b"two"
        assert b"leaked" not in client.received


async def test_an_answer_that_comes_before_any_request_is_nobodys() -> None:
    async def hasty(wire: UpstreamWire) -> None:
        await wire.send(LEAK)
        await wire.rest()

    async with ScriptedUpstream(hasty) as upstream, plain_proxy(upstream.url) as proxy:
        connection = await proxy.route("plain").pool.acquire()
        await until(lambda: connection.closed)
        proxy.route("plain").pool.release(connection)
        await settle()
        assert proxy.route("plain").pool.counts() == {"active": 0, "idle": 0, "opening": 0}
