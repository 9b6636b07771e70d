"""Bodies pass as they come, no faster than the slower side takes them, and never look complete
when they are not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.support import (
    PATIENCE,
    Broken,
    ScriptedUpstream,
    answer,
    plain_proxy,
    raw_client,
    request,
    settle,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Proxy, RawClient, UpstreamWire, Wire

MIB = 1024 * 1024
WHOLE = 64 * MIB
PIECE = bytes(range(256)) * 256  # 64 KiB
# What sockets, transports and the proxy may hold together; far less than what is sent.
HELD_AT_MOST = 24 * MIB
CHUNKED = [("Transfer-Encoding", "chunked")]


class Counted:
    """Sends endlessly, and counts what the other side has taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def pour(self, wire: Wire, *, chunked: bool = False, size: int = WHOLE) -> None:
        while self.sent < size:
            await wire.send(b"10000\r\n%b\r\n" % PIECE if chunked else PIECE)
            self.sent += len(PIECE)


async def standstill(counted: Counted) -> None:
    """Wait until nothing more is taken: the same count many times over."""
    before, same = -1, 0
    while same < 20:
        await settle()
        await asyncio.sleep(0.002)
        same = same + 1 if counted.sent == before else 0
        before = counted.sent


@contextlib.asynccontextmanager
async def running(play: object) -> AsyncIterator[tuple[ScriptedUpstream, Proxy, RawClient]]:
    async with (
        ScriptedUpstream(play) as upstream,  # type: ignore[arg-type]  # any play
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        yield upstream, proxy, client


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_download_waits_for_the_caller_and_arrives_whole(*, chunked: bool) -> None:
    counted = Counted()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % WHOLE
        await wire.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        await counted.pour(wire, chunked=chunked)
        await wire.send(b"0\r\n\r\n" if chunked else b"")

    async with running(play) as (_, _, client):
        await client.send(request("GET", "/"))
        await client.head()
        await standstill(counted)
        assert counted.sent < HELD_AT_MOST
        received, digest = 0, hashlib.sha256()
        async with asyncio.timeout(PATIENCE * 3):
            if chunked:
                while size := int(await client.reader.readuntil(b"\r\n"), 16):
                    piece = (await client.reader.readexactly(size + 2))[:-2]
                    received += size
                    digest.update(piece)
            else:
                while received < WHOLE:
                    piece = await client.reader.read(MIB)
                    received += len(piece)
                    digest.update(piece)
        assert received == WHOLE
        assert digest.digest() == hashlib.sha256(PIECE * (WHOLE // len(PIECE))).digest()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_waits_for_the_upstream_and_arrives_whole(*, chunked: bool) -> None:
    may_read = asyncio.Event()
    received = 0

    async def play(wire: UpstreamWire) -> None:
        nonlocal received
        await wire.head()
        await may_read.wait()
        while received < WHOLE:
            received += len(await wire.reader.read(MIB))
        await wire.send(answer(b"thanks"))

    async with running(play) as (_, _, client):
        framing = CHUNKED if chunked else [("Content-Length", str(WHOLE))]
        await client.send(request("POST", "/", framing))
        counted = Counted()
        pouring = asyncio.create_task(counted.pour(client, chunked=chunked))
        await standstill(counted)
        assert counted.sent < HELD_AT_MOST
        may_read.set()
        async with asyncio.timeout(PATIENCE * 3):
            await pouring
        await client.send(b"0\r\n\r\n" if chunked else b"")
        assert (await client.answer()).body == b"thanks"
        assert received >= WHOLE


async def test_pieces_pass_as_soon_as_they_come() -> None:
    upload, download = asyncio.Event(), asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        assert await wire.some() == b"5\r\nfirst\r\n"
        upload.set()
        assert await wire.some() == b"6\r\nsecond\r\n"
        upload.set()
        assert await wire.some() == b"0\r\n\r\n"
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await download.wait()
        await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with running(play) as (_, _, client):
        await client.send(request("POST", "/", CHUNKED), b"5\r\nfirst\r\n")
        for piece in (b"6\r\nsecond\r\n", b"0\r\n\r\n"):
            async with asyncio.timeout(PATIENCE):
                await upload.wait()
            upload.clear()
            await client.send(piece)
        await client.head()
        assert await client.some() == b"3\r\none\r\n"
        download.set()
        assert await client.rest_of(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


async def test_an_answer_that_comes_early_is_passed_on_while_the_upload_still_runs() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await wire.send(answer(b"enough", status="413 Too Much"))
        await wire.rest()
        wire.lost.set()

    async with running(play) as (upstream, _, client):
        await client.send(request("POST", "/", [("Content-Length", str(WHOLE))]), PIECE)
        got = await client.answer()
        assert (got.status, got.body, got.get("X-Ekeko-Error")) == (413, b"enough", None)
        await until(upstream.connections[0].lost.is_set)  # the exchange is over
        assert len(upstream.connections[0].received) < HELD_AT_MOST


async def test_after_an_early_answer_the_rest_of_an_upload_is_read_before_the_connection_ends() -> (
    None
):
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await wire.some()

    async with running(play) as (_, proxy, client):
        await client.send(request("POST", "/", CHUNKED), b"5\r\nfirst\r\n")
        assert (await client.answer()).get("X-Ekeko-Error") == "upstream_closed"
        await until(lambda: not proxy.route("plain").in_flight)
        await settle()
        # Closing before all of it has come would reset the connection, and the answer be lost.
        assert not client.reader.at_eof()
        await client.send(b"0\r\n\r\n")
        assert await client.rest() == b""


# What is broken off never looks complete.


@pytest.mark.parametrize("framing", [CHUNKED, [("Content-Length", "100000")]])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_upload_cut_off_by_the_caller_never_looks_complete(
    framing: list[tuple[str, str]], how: str
) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await wire.rest()
        wire.lost.set()

    async with running(play) as (upstream, proxy, client):
        piece = b"3e8\r\n" + b"x" * 1000 + b"\r\n" if framing is CHUNKED else b"x" * 1000
        await client.send(request("POST", "/", framing), piece)
        await until(lambda: upstream.connections and upstream.connections[0].received)
        client.close() if how == "close" else client.reset()
        async with asyncio.timeout(PATIENCE):
            await upstream.connections[0].lost.wait()
        got = bytes(upstream.connections[0].received)
        assert len(got) < 2000
        assert not got.endswith(b"0\r\n\r\n")
        await until(proxy.lines)
        (line,) = proxy.lines()
        assert (line["status"], line["code"]) == (499, "caller_closed")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"Content-Length: 100", b"only this"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nhel"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_download_broken_off_upstream_never_looks_complete(
    head: bytes, part: bytes, how: str
) -> None:
    may_break = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (head, part))
        await may_break.wait()
        wire.close() if how == "close" else wire.reset()

    async with running(play) as (_, proxy, client):
        await client.send(request("GET", "/"))
        got = await client.head()
        may_break.set()
        with pytest.raises(Broken):
            await client.body(got)
        await until(proxy.lines)
        (line,) = proxy.lines()
        assert (line["status"], line["code"]) == (200, "upstream_closed")


@pytest.mark.parametrize("nonsense", [b"zz\r\n", b"-1\r\n", b"fffffffffffffffff1\r\n", b"0x5\r\n"])
async def test_broken_chunks_from_upstream_break_the_callers_connection(nonsense: bytes) -> None:
    may_break = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await may_break.wait()
        await wire.send(nonsense)
        await wire.rest()

    async with running(play) as (_, _, client):
        await client.send(request("GET", "/"))
        got = await client.head()
        may_break.set()
        with pytest.raises(Broken):
            await client.body(got)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_an_exchange_is_given_up_when_its_caller_has_gone(part: bytes) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(part)
        await wire.rest()
        wire.lost.set()

    async with running(play) as (upstream, proxy, client):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        if part:
            await client.head()
        client.close()
        await until(upstream.connections[0].lost.is_set)
        await until(lambda: proxy.route("plain").in_flight == 0)
        assert proxy.route("plain").pool.counts() == {"active": 0, "idle": 0, "opening": 0}


async def test_an_upload_that_turns_out_malformed_reaches_nobody_as_complete() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        await wire.rest()
        wire.lost.set()

    async with running(play) as (upstream, _, client):
        await client.send(request("POST", "/", CHUNKED), b"2\r\nhi\r\n")
        await until(lambda: upstream.connections and upstream.connections[0].received)
        await client.send(b"nonsense\r\n0\r\n\r\n")
        assert await client.rest() == b""  # a 4xx would claim that nothing was sent
        await until(upstream.connections[0].lost.is_set)
        assert not upstream.connections[0].received.endswith(b"0\r\n\r\n")
