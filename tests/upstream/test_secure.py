"""TLS on the upstream leg, against OpenSSL's server side and asyncio's."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from proxy import tls
from proxy.model import Tls
from proxy.upstream.secure import SecureTransport
from tests.support import ask, plain_proxy, raw_client, request, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.certificates import Authority

MIB = 1024 * 1024
UNANNOUNCED = b"HTTP/1.1 200 OK\r\n\r\nto the end"

Play: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


# Through the proxy.


@asynccontextmanager
async def speaking(
    pair: tuple[str, str], play: Play, version: ssl.TLSVersion
) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    context.minimum_version = context.maximum_version = version

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await play(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


def trusting(authority: Authority) -> dict[str, Any]:
    return {"routes": {"plain": {"tls": {"ca": authority.ca}}}}


BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@BOTH
async def test_an_end_that_the_peer_announces_ends_a_body(
    authority: Authority, pair: tuple[str, str], version: ssl.TLSVersion
) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNANNOUNCED)  # asyncio announces the end when it closes

    async with speaking(pair, play, version) as url, plain_proxy(url, trusting(authority)) as proxy:
        assert (await ask(proxy.plain, "GET", "/")).body == b"to the end"
        assert proxy.lines()[-1]["code"] is None


@BOTH
async def test_an_end_that_nobody_announced_breaks_the_caller_off(
    authority: Authority, pair: tuple[str, str], version: ssl.TLSVersion
) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNANNOUNCED)
        await writer.drain()
        # What somebody on the way can do, who has no key: end the TCP connection.
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as tcp:
            tcp.shutdown(socket.SHUT_WR)
        await reader.read()

    async with (
        speaking(pair, play, version) as url,
        plain_proxy(url, trusting(authority)) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await until(proxy.lines)
        assert proxy.lines()[-1]["code"] == "upstream_closed"


@BOTH
async def test_large_bodies_pass_whole_both_ways_on_one_connection(
    authority: Authority, pair: tuple[str, str], version: ssl.TLSVersion
) -> None:
    connections = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(5 * MIB)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[::-1])
            await writer.drain()

    body = bytes(range(256)) * (5 * MIB // 256)
    async with (
        speaking(pair, play, version) as url,
        plain_proxy(url, trusting(authority)) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for _ in range(2):
            assert (await client.ask("POST", "/", body=body)).body == body[::-1]
    assert len(connections) == 1


# Byte by byte, without a network.


class Peer:
    """OpenSSL's server side, and the TCP transport that leads to it."""

    def __init__(self, pair: tuple[str, str]) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.events: list[str] = []

    def write(self, data: bytes) -> None:
        self.incoming.write(data)

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "there"}.get(name, default)

    def heard(self) -> bytes:
        found = b""
        while self.incoming.pending or self.tls.pending():
            try:
                found += self.tls.read(100_000)
            except ssl.SSLWantReadError:
                break
        return found


class Protocol(asyncio.Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        del transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(type(exc))

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class Pair:
    """Both sides, connected by hand; `step` bytes at a time."""

    def __init__(self, authority: Authority, pair: tuple[str, str], step: int) -> None:
        self.peer, self.protocol, self.step = Peer(pair), Protocol(), step
        context = tls.context(Tls(ca=authority.ca))
        self.secure = SecureTransport(self.protocol, context, "localhost")

    async def connect(self) -> Pair:
        self.secure.connection_made(self.peer)  # type: ignore[arg-type]  # as much as is needed
        for _ in range(3):
            with suppress(ssl.SSLWantReadError):
                self.peer.tls.do_handshake()
            self.deliver()
        await self.secure.made
        return self

    def deliver(self, limit: int | None = None) -> None:
        data = self.peer.outgoing.read()[:limit]
        for at in range(0, len(data), self.step):
            self.secure.data_received(data[at : at + self.step])


@pytest.mark.parametrize("step", [1, 7, 100_000])
async def test_nothing_depends_on_how_the_bytes_are_cut(
    authority: Authority, pair: tuple[str, str], step: int
) -> None:
    both = await Pair(authority, pair, step).connect()
    assert both.protocol.events == ["made"]
    both.secure.write(b"hello" * 10_000)
    assert both.peer.heard() == b"hello" * 10_000
    for piece in (b"a", b"b" * 40_000, b"c"):
        both.peer.tls.write(piece)
    both.deliver()
    assert both.protocol.received == b"a" + b"b" * 40_000 + b"c"
    with pytest.raises(ssl.SSLWantReadError):
        both.peer.tls.unwrap()
    both.deliver()
    both.secure.connection_lost(None)
    assert both.protocol.events == ["made", "eof", type(None)]
    assert both.peer.events == ["close"]


async def test_a_part_of_a_record_waits_for_the_rest(
    authority: Authority, pair: tuple[str, str]
) -> None:
    both = await Pair(authority, pair, 100_000).connect()
    both.peer.tls.write(b"whole")
    data = both.peer.outgoing.read()
    both.secure.data_received(data[:-1])
    assert both.protocol.received == b""
    both.secure.data_received(data[-1:])
    assert both.protocol.received == b"whole"


async def test_what_was_tampered_with_ends_the_connection_and_is_not_passed_on(
    authority: Authority, pair: tuple[str, str]
) -> None:
    both = await Pair(authority, pair, 100_000).connect()
    both.peer.tls.write(b"good")
    good = both.peer.outgoing.read()
    both.peer.tls.write(b"forged")
    forged = bytearray(both.peer.outgoing.read())
    forged[-1] ^= 1
    both.secure.data_received(good + forged)
    assert both.protocol.received == b"good"
    assert both.peer.events == ["close"]
    both.secure.write(b"more")  # into nowhere
    both.secure.data_received(good)
    both.secure.connection_lost(None)
    assert both.protocol.received == b"good"
    assert issubclass(both.protocol.events[-1], ssl.SSLError)


async def test_closing_announces_the_end(authority: Authority, pair: tuple[str, str]) -> None:
    both = await Pair(authority, pair, 100_000).connect()
    both.secure.write(b"last words")
    both.secure.close()
    assert both.peer.tls.read(100) == b"last words"
    assert both.peer.tls.read(100) == b""  # close_notify, not an error
    assert both.peer.events == ["close"]


async def test_what_concerns_the_transport_below_reaches_it(
    authority: Authority, pair: tuple[str, str]
) -> None:
    both = await Pair(authority, pair, 100_000).connect()
    both.secure.pause_reading()
    both.secure.resume_reading()
    both.secure.abort()
    assert both.peer.events == ["pause", "resume", "abort"]
    both.secure.pause_writing()
    both.secure.resume_writing()
    assert both.protocol.events == ["made", "pause", "resume"]
    assert both.secure.get_extra_info("peername") == "there"
    both.secure.connection_lost(ConnectionResetError())
    assert both.protocol.events[-1] is ConnectionResetError
    for call in (both.secure.pause_reading, both.secure.resume_reading):
        call()
    both.secure.write(b"into nowhere")
    both.secure.close()
    both.secure.abort()


async def test_a_connection_that_ends_within_the_handshake_is_not_made(
    authority: Authority, pair: tuple[str, str]
) -> None:
    both = Pair(authority, pair, 100_000)
    both.secure.connection_made(both.peer)  # type: ignore[arg-type]  # as above
    both.secure.connection_lost(None)
    with pytest.raises(OSError, match="handshake"):
        await both.secure.made
    assert both.protocol.events == []
