"""Opening connections: TLS that is verified, outbound proxies, and failures that say why."""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohappyeyeballs
import pytest

from proxy.addresses import parse_origin
from proxy.errors import ProxyError
from proxy.model import Tls
from proxy.secrets import Secret
from proxy.tls import TlsError
from proxy.upstream.dial import Dialer, Via
from proxy.upstream.pool import Pool
from tests.stepping import MOMENTS, Cancelled
from tests.support import (
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
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.certificates import Authority
    from tests.support import UpstreamWire


class Silent(asyncio.Protocol):
    """A protocol that only holds its transport."""

    transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


async def refusal(dialer: Dialer, *, within: float = 5) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await dialer.open(Silent, within=within)
    assert (caught.value.code, caught.value.sent) == ("upstream_unreachable", False)
    return caught.value


async def test_an_upstream_that_does_not_listen_is_named_by_its_origin() -> None:
    async with ScriptedUpstream([]) as upstream:
        url = upstream.url
    error = await refusal(Dialer(parse_origin(url + "/base"), Tls()))
    assert url in error.detail
    assert "/base" not in error.detail
    assert "Nothing was sent" in error.detail


async def test_a_name_that_does_not_exist_is_told_from_other_failures() -> None:
    error = await refusal(Dialer(parse_origin("https://nowhere.invalid"), Tls()))
    assert "name lookup" in error.detail


async def test_a_connection_that_takes_too_long_is_given_up() -> None:
    """The upstream accepts, and never says a word of TLS."""

    async def play(wire: UpstreamWire) -> None:
        await wire.rest()

    async with ScriptedUpstream(play) as upstream:
        dialer = Dialer(parse_origin(f"https://127.0.0.1:{upstream.port}"), Tls())
        error = await refusal(dialer, within=0.05)
        assert "no connection within 0.05 s" in error.detail


async def test_what_does_not_speak_tls_is_unreachable() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.some()
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with ScriptedUpstream(play) as upstream:
        await refusal(Dialer(parse_origin(f"https://127.0.0.1:{upstream.port}"), Tls()))


# TLS.


@asynccontextmanager
async def tls_server(
    pair: tuple[str, str],
    *,
    version: ssl.TLSVersion | None = None,
    client_ca: str | None = None,
    says: bytes | None = None,
) -> AsyncIterator[int]:
    """Answer every request over TLS; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(*pair)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(says or answer(b"over TLS", "Connection: close"))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_an_upstream_is_reached_over_tls_by_an_authority_of_ones_own(
    authority: Authority, pair: tuple[str, str]
) -> None:
    async with tls_server(pair) as port:
        tls = {"routes": {"plain": {"tls": {"ca": authority.ca}}}}
        async with plain_proxy(f"https://localhost:{port}", tls) as proxy:
            assert (await ask(proxy.plain, "GET", "/")).body == b"over TLS"


async def test_over_tls_an_answer_whose_end_nothing_announced_is_broken_off(
    authority: Authority, pair: tuple[str, str]
) -> None:
    unannounced = b'HTTP/1.1 200 OK\r\n\r\n{"data": [1, 2'
    async with tls_server(pair, says=unannounced) as port:
        tls = {"routes": {"plain": {"tls": {"ca": authority.ca}}}}
        async with (
            plain_proxy(f"https://localhost:{port}", tls) as proxy,
            raw_client(proxy.plain) as client,
        ):
            await client.send(request("GET", "/"))
            got = await client.rest()
            assert not got.endswith(b"0\r\n\r\n")
            assert proxy.lines()[-1]["code"] == "upstream_closed"


async def test_a_via_that_is_no_proxys_url_is_told_without_its_password() -> None:
    via = Secret.literal("http://user:S3CRET#PW@host:1")
    error = await refusal(Dialer(parse_origin("https://vendor.example"), Tls(), via))
    assert "via" in error.detail
    assert "S3CRET" not in error.detail


async def test_a_certificate_of_an_unknown_authority_is_refused(pair: tuple[str, str]) -> None:
    async with tls_server(pair) as port, plain_proxy(f"https://localhost:{port}") as proxy:
        got = await ask(proxy.plain, "GET", "/")
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_unreachable")
        assert "its certificate" in got.json()["detail"]


async def test_a_certificate_for_another_name_is_refused(
    authority: Authority, pair: tuple[str, str]
) -> None:
    async with tls_server(pair) as port:
        tls = Tls(ca=authority.ca)
        error = await refusal(Dialer(parse_origin(f"https://127.0.0.1:{port}"), tls))
        assert "its certificate" in error.detail
        wrong = Tls(ca=authority.ca, server_name="other.example")
        await refusal(Dialer(parse_origin(f"https://localhost:{port}"), wrong))


async def test_the_name_to_verify_may_be_configured(
    authority: Authority, pair: tuple[str, str]
) -> None:
    async with tls_server(pair) as port:
        tls = Tls(ca=authority.ca, server_name="localhost")
        protocol = await Dialer(parse_origin(f"https://127.0.0.1:{port}"), tls).open(
            Silent, within=5
        )
        assert protocol.transport is not None
        assert protocol.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        protocol.transport.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(authority: Authority, pair: tuple[str, str]) -> None:
    async with tls_server(pair, version=ssl.TLSVersion.TLSv1_1) as port:
        tls = Tls(ca=authority.ca)
        await refusal(Dialer(parse_origin(f"https://localhost:{port}"), tls))


async def test_a_client_certificate_is_shown_where_one_is_configured(
    authority: Authority, pair: tuple[str, str]
) -> None:
    cert, key = await asyncio.to_thread(authority.issue, "client", "DNS:client")
    async with tls_server(pair, client_ca=authority.ca) as port:
        tls = {"routes": {"plain": {"tls": {"ca": authority.ca, "cert": cert, "key": key}}}}
        async with plain_proxy(f"https://localhost:{port}", tls) as proxy:
            assert (await ask(proxy.plain, "GET", "/")).body == b"over TLS"
        without = {"routes": {"plain": {"tls": {"ca": authority.ca}}}}
        async with plain_proxy(f"https://localhost:{port}", without) as proxy:
            assert (await ask(proxy.plain, "GET", "/")).status == 502


def test_a_certificate_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for tls in (
        Tls(ca=str(broken)),
        Tls(ca=str(tmp_path / "missing.pem")),
        Tls(cert=str(broken), key=str(broken)),
    ):
        with pytest.raises(TlsError, match=r"(broken|missing)\.pem"):
            Dialer(parse_origin("https://localhost"), tls)


# Outbound proxies.


class Outbound:
    """An outbound proxy's play: answers CONNECT, then tunnels to a port of this machine."""

    def __init__(self, reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.reply = reply
        self.port = 0

    async def __call__(self, wire: UpstreamWire) -> None:
        await wire.request()
        half = len(self.reply) // 2
        await wire.send(self.reply[:half])
        await settle(5)  # so that it has to be waited for
        await wire.send(self.reply[half:])
        if b" 200 " not in self.reply:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        pumps = [
            asyncio.create_task(_pump(wire.reader, writer)),
            asyncio.create_task(_pump(reader, wire.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def via(outbound: ScriptedUpstream, login: str = "") -> Secret:
    return Secret.literal(f"http://{login}127.0.0.1:{outbound.port}")


async def test_an_upstream_is_reached_through_an_outbound_proxy(
    authority: Authority, pair: tuple[str, str]
) -> None:
    play = Outbound()
    async with tls_server(pair) as play.port, ScriptedUpstream(play) as outbound:
        route = {
            "tls": {"ca": authority.ca},
            "via": f"http://us%40er:p%3Ass@127.0.0.1:{outbound.port}",
        }
        async with plain_proxy(
            f"https://localhost:{play.port}", {"routes": {"plain": route}}
        ) as proxy:
            assert (await ask(proxy.plain, "GET", "/")).body == b"over TLS"
        (connect,) = outbound.requests
        assert connect.start == f"CONNECT localhost:{play.port} HTTP/1.1"
        assert connect.get("Host") == f"localhost:{play.port}"
        expected = base64.b64encode(b"us@er:p:ss").decode()
        assert connect.get("Proxy-Authorization") == f"Basic {expected}"
        assert len(connect.fields) == 2  # nothing of the request, no credential


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403"),
        (b"canary\r\n\r\n", "no status"),
        (b"", "did not answer CONNECT"),
        (b"HTTP/1.1 200 OK\r\nX: ", "did not answer CONNECT"),
        (b"HTTP/1.1 2", "did not answer CONNECT"),
    ],
)
async def test_an_outbound_proxy_that_refuses_is_told_from_the_upstream(
    reply: bytes, said: str
) -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(reply)

    async with ScriptedUpstream(play) as outbound:
        dialer = Dialer(
            parse_origin("https://api.eka.care"), Tls(), via(outbound, "user:canary-pass@")
        )
        error = await refusal(dialer)
        assert "outbound proxy" in error.detail
        assert said in error.detail
        assert "canary" not in error.detail


async def test_an_endless_answer_of_an_outbound_proxy_is_given_up() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000)

    async with ScriptedUpstream(play) as outbound:
        error = await refusal(Dialer(parse_origin("https://api.eka.care"), Tls(), via(outbound)))
        assert "did not answer CONNECT" in error.detail


async def test_an_outbound_proxy_that_is_not_there_is_unreachable() -> None:
    async with ScriptedUpstream([]) as outbound:
        gone = via(outbound, "user:canary@")
    error = await refusal(Dialer(parse_origin("https://api.eka.care"), Tls(), gone))
    assert "canary" not in error.detail


async def test_proxies_of_the_environment_are_not_picked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedUpstream([]) as outbound, ScriptedUpstream([answer(b"ok")]) as upstream:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, outbound.url)
        async with plain_proxy(upstream.url) as proxy:
            assert (await ask(proxy.plain, "GET", "/")).body == b"ok"
        assert outbound.connections == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("by_tls", "by_via"),
    [(False, False), (True, False), (True, True)],  # plain http goes by no outbound proxy
)
async def test_a_dial_cancelled_anywhere_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    authority: Authority,
    pair: tuple[str, str],
    moment: str,
    *,
    by_tls: bool,
    by_via: bool,
) -> None:
    """Name lookup, connecting, both halves of CONNECT, the handshake: at each wait in turn."""
    opened: list[socket.socket] = []
    connect = aiohappyeyeballs.start_connection

    async def noted(*args: Any, **kwargs: Any) -> socket.socket:
        opened.append(await connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", noted)
    play = Outbound()
    async with (
        tls_server(pair) as tls_port,
        ScriptedUpstream([]) as plain,
        ScriptedUpstream(play) as outbound,
    ):
        play.port = tls_port if by_tls else plain.port
        origin = parse_origin(f"{'https' if by_tls else 'http'}://localhost:{play.port}")
        dialer = Dialer(origin, Tls(ca=authority.ca), via(outbound) if by_via else None)
        pool = Pool(dialer, now=time.monotonic, connect_timeout=5, limit=1)
        waits = itertools.count(1)
        while True:
            acquiring = Cancelled(pool.acquire(), next(waits), moment)
            task = asyncio.ensure_future(acquiring)
            await asyncio.wait([task])
            if not task.cancelled():
                break
            assert pool.counts() == {"active": 0, "idle": 0, "opening": 0}
            await until(lambda: all(each.fileno() == -1 for each in opened))
        assert acquiring.waits > (3 if by_via else 2)
        assert not task.result().closed
        assert pool.counts() == {"active": 1, "idle": 0, "opening": 0}
        pool.abort()
        await until(lambda: all(each.fileno() == -1 for each in opened))
    gc.collect()  # a socket that was left open would be an error now


def test_an_outbound_proxys_password_is_not_shown() -> None:
    assert "canary" not in repr(Via.parse("http://user:canary@127.0.0.1:3128"))
