"""TLS towards callers: who has no certificate gets no further, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import ssl
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from proxy import peer, tls
from proxy.config.settings import Settings
from proxy.model import ListenerTls
from tests.support import (
    Proxy,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    raw_client,
    request,
    until,
)
from tests.workers import support as workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxy.listener import Listener
    from tests.certificates import Authority
    from tests.support import UpstreamWire

HERE = "127.0.0.1:0"
KEY = "canary-key-7d41fd"
KEYS: dict[str, Any] = {"access": {"keys": {"billing": KEY}}}
BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def secured(pair: tuple[str, str], client_ca: str | None = None, at: str = HERE) -> dict[str, Any]:
    files = {"cert": pair[0], "key": pair[1], "client_ca": client_ca}
    return {"listeners": {at: {"tls": files}}}


def trusting(
    authority: Authority,
    own: tuple[str, str] | None = None,
    version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """Make a caller's context, which has a certificate of its `own`."""
    context = ssl.create_default_context(cafile=authority.ca)
    if own is not None:
        context.load_cert_chain(*own)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def listener(proxy: Proxy) -> Listener:
    (only,) = proxy.app._listeners.values()
    return only


async def unheard(proxy: Proxy, context: ssl.SSLContext) -> None:
    """See that a request is not answered. In TLS 1.3 a caller is done before it is refused."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        async with raw_client(proxy.plain, context) as client:
            await client.send(request("GET", "/", [("X-Ekeko-Key", KEY)]))
            assert await client.some() == b""


@pytest.fixture(scope="module")
def app(authority: Authority) -> tuple[str, str]:
    return authority.issue("app", "DNS:app.internal,DNS:other.internal")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream([answer(b"served")] * 9) as upstream:
        yield upstream


@pytest.fixture
async def mutual(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str]
) -> AsyncIterator[Proxy]:
    async with plain_proxy(upstream.url, secured(pair, authority.ca)) as proxy:
        yield proxy


# Who passes.


@BOTH
async def test_a_certificate_names_its_holder(
    upstream: ScriptedUpstream,
    mutual: Proxy,
    authority: Authority,
    app: tuple[str, str],
    version: ssl.TLSVersion,
) -> None:
    assert mutual.plain.startswith("https://")
    context = trusting(authority, app, version)
    async with raw_client(mutual.plain, context) as client:
        for _ in range(2):
            assert (await client.ask("GET", "/")).body == b"served"
    assert [line["identity"] for line in mutual.lines()] == ["cert:app.internal"] * 2
    assert mutual.lines()[0]["caller"] == "127.0.0.1"
    assert len(upstream.requests) == 2


@BOTH
async def test_without_one_nothing_is_served(
    upstream: ScriptedUpstream, mutual: Proxy, authority: Authority, version: ssl.TLSVersion
) -> None:
    await unheard(mutual, trusting(authority, None, version))
    await until(lambda: not listener(mutual)._handshakes)
    assert upstream.connections == []
    assert mutual.lines() == []


@BOTH
async def test_one_of_another_authority_is_none(
    upstream: ScriptedUpstream,
    mutual: Proxy,
    authority: Authority,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    foreign = await asyncio.to_thread(_foreign, tmp_path)
    await unheard(mutual, trusting(authority, foreign, version))
    assert upstream.connections == []


def _foreign(folder: Path) -> tuple[str, str]:
    from tests import certificates  # noqa: PLC0415 - a fixture's name is the same

    return certificates.found_in(folder).issue("app", "DNS:app.internal")


async def test_a_route_names_the_certificates_that_it_serves(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    other = await asyncio.to_thread(authority.issue, "Other App", None)
    there: dict[str, Any] = {"routes": {"plain": {"callers": ["cert:app.internal"]}}}
    async with plain_proxy(upstream.url, secured(pair, authority.ca), there) as proxy:
        context = trusting(authority, app)
        assert (await ask(proxy.plain, "GET", "/", tls=context)).status == 200
        got = await ask(proxy.plain, "GET", "/", tls=trusting(authority, other))
        assert (got.status, got.get("X-Ekeko-Error")) == (403, "caller_not_allowed")
        assert [line["identity"] for line in proxy.lines()] == [
            "cert:app.internal",
            "cert:Other App",
        ]


async def test_tls_alone_identifies_nobody(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    async with plain_proxy(upstream.url, secured(pair), KEYS) as proxy:
        for context in (trusting(authority), trusting(authority, app)):
            assert (await ask(proxy.plain, "GET", "/", tls=context)).status == 401
            key = [("X-Ekeko-Key", KEY)]
            assert (await ask(proxy.plain, "GET", "/", key, tls=context)).status == 200


async def test_a_certificate_stands_in_for_a_key(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    async with plain_proxy(upstream.url, secured(pair, authority.ca), KEYS) as proxy:
        context = trusting(authority, app)
        assert (await ask(proxy.plain, "GET", "/", tls=context)).status == 200
        got = await ask(proxy.plain, "GET", "/", [("X-Ekeko-Key", "canary-wrong")], tls=context)
        assert got.status == 401


@pytest.mark.parametrize(
    "called",
    [
        ("a", "IP:127.0.0.1,URI:spiffe://here/billing,DNS:b", "cert:spiffe://here/billing"),
        ("quoted\"and 'so", None, "cert:quoted\"and 'so"),
        ("c", "IP:127.0.0.1", "cert:c"),
    ],
)
async def test_a_certificate_s_name(
    upstream: ScriptedUpstream,
    mutual: Proxy,
    authority: Authority,
    called: tuple[str, str | None, str],
) -> None:
    name, san, known_as = called
    own = await asyncio.to_thread(authority.issue, name, san)
    assert (await ask(mutual.plain, "GET", "/", tls=trusting(authority, own))).status == 200
    assert [line["identity"] for line in mutual.lines()] == [known_as]
    assert len(upstream.requests) == 1


def test_a_certificate_without_a_name_names_nobody() -> None:
    assert peer._certificate(None) is None
    nameless = {"subject": ((("organizationName", "x"),),), "subjectAltName": (("IP", "1"),)}
    for found in (None, {}, nameless, {"subject": ((("commonName", ""),),)}):
        assert next(peer._names(found or {}), None) is None


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"])
async def test_curl_gets_through_with_its_certificate_alone(
    mutual: Proxy, authority: Authority, app: tuple[str, str], version: str
) -> None:
    url = mutual.plain.replace("127.0.0.1", "localhost")
    usual = ["curl", "-sS", "-4", "--cacert", authority.ca, *version.split(), url]
    got = await asyncio.to_thread(subprocess.run, usual, capture_output=True, check=False)
    assert got.returncode != 0
    assert got.stdout == b""
    with_own = [*usual, "--cert", app[0], "--key", app[1]]
    got = await asyncio.to_thread(subprocess.run, with_own, capture_output=True, check=False)
    assert (got.returncode, got.stdout) == (0, b"served"), got.stderr


async def test_what_is_older_than_1_2_is_not_spoken(pair: tuple[str, str]) -> None:
    settings = ListenerTls(cert=pair[0], key=pair[1])
    context = await asyncio.to_thread(tls.listener_context, settings)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


# What fails beside it.


async def test_a_plain_request_is_not_heard_and_stops_nothing(
    mutual: Proxy, authority: Authority, app: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for said in (request("GET", "/"), b"\x16\x03\x01\xff\xff" + b"x" * 99, b"\x00"):
        async with raw_client(mutual.plain.replace("https", "http")) as client:
            await client.send(said)
            client.writer.write_eof()
            assert b"HTTP" not in await client.rest()
    await until(lambda: not listener(mutual)._handshakes)
    assert (await ask(mutual.plain, "GET", "/", tls=trusting(authority, app))).status == 200
    assert "Traceback" not in caplog.text
    own = [each for each in caplog.records if each.name.startswith("proxy")]
    assert {(each.levelname, each.exc_info) for each in own} == {("DEBUG", None)}
    assert listener(mutual).limits.taken <= 1


async def test_a_handshake_that_does_not_come_to_its_end_costs_the_connection(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    limits = {"limits": {"header_timeout": 20, "connections": 1}}
    async with (
        plain_proxy(upstream.url, secured(pair, authority.ca), limits) as proxy,
        raw_client(proxy.plain.replace("https", "http")) as stalled,
    ):
        await stalled.send(b"\x16\x03\x01")
        await until(lambda: listener(proxy)._handshakes)
        with pytest.raises((ConnectionError, ssl.SSLError)):  # it counts, and there is one place
            await ask(proxy.plain, "GET", "/", tls=trusting(authority, app))
        now = asyncio.get_running_loop().time()
        listener(proxy).sweep(now + 15)
        assert listener(proxy)._handshakes
        listener(proxy).sweep(now + 25)
        assert proxy.app._metrics.limits["header_timeout"] == 1
        assert await stalled.rest() == b""
        await until(lambda: not listener(proxy).limits.taken)
        assert (await ask(proxy.plain, "GET", "/", tls=trusting(authority, app))).status == 200


async def test_a_connection_takes_one_place_before_and_after_its_handshake(
    mutual: Proxy, authority: Authority, app: tuple[str, str]
) -> None:
    async with raw_client(mutual.plain, trusting(authority, app)) as client:
        assert (await client.ask("GET", "/")).status == 200
        assert listener(mutual).limits.taken == 1
        assert not listener(mutual)._handshakes
    await until(lambda: not listener(mutual).limits.taken)


async def test_a_drain_waits_for_no_handshake(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str]
) -> None:
    async with (
        plain_proxy(upstream.url, secured(pair, authority.ca)) as proxy,
        raw_client(proxy.plain.replace("https", "http")) as stalled,
    ):
        await until(lambda: listener(proxy)._handshakes)
        proxy.app.stop()
        await proxy.app.run()
        assert await stalled.rest() == b""


@BOTH
async def test_a_caller_that_is_refused_while_it_sends_sees_why(
    mutual: Proxy, authority: Authority, app: tuple[str, str], version: ssl.TLSVersion
) -> None:
    async with raw_client(mutual.plain, trusting(authority, app, version)) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n")
        for _ in range(20):
            client.writer.write(bytes(64 * 1024))
            await asyncio.sleep(0)
        got = await client.answer()
        assert (got.status, got.get("X-Ekeko-Error")) == (400, "bad_request")
    await until(lambda: not listener(mutual).limits.taken)


async def test_a_large_body_passes_both_ways_and_a_caller_that_leaves_is_noticed(
    authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    body = bytes(range(256)) * 4096  # 1 MiB

    async def echo(wire: UpstreamWire) -> None:
        got = await wire.request()
        await wire.send(answer(got.body))
        await wire.request()
        await wire.rest()
        wire.lost.set()

    async with (
        ScriptedUpstream(echo) as upstream,
        plain_proxy(upstream.url, secured(pair, authority.ca)) as proxy,
        raw_client(proxy.plain, trusting(authority, app)) as client,
    ):
        assert (await client.ask("POST", "/", body=body)).body == body
        await client.send(request("GET", "/"))
        await until(lambda: len(upstream.requests) == 2)
        client.drop()
        await upstream.connections[0].lost.wait()
        await until(lambda: len(proxy.lines()) == 2)
        assert proxy.lines()[1]["code"] == "caller_closed"


async def test_where_an_answer_sends_a_caller_back_it_is_by_tls(
    authority: Authority, pair: tuple[str, str]
) -> None:
    async def play(wire: UpstreamWire) -> None:
        got = await wire.request()
        where = f"Location: http://{got.get('Host')}/there"
        await wire.send(answer(b"", where, status="307 Temporary Redirect"))

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, secured(pair)) as proxy,
    ):
        got = await ask(proxy.plain, "GET", "/", tls=trusting(authority))
        assert got.get("Location") == "https://localhost/there"


# The files.


def copy(pair: tuple[str, str], folder: Path) -> tuple[str, str]:
    """Copy a certificate and its key to fixed names."""
    cert, key = folder / "own.pem", folder / "own.key"
    shutil.copy(pair[0], cert)
    shutil.copy(pair[1], key)
    return str(cert), str(key)


def name_of(client: Any) -> str:
    found: str = client.writer.get_extra_info("peercert")["serialNumber"]
    return found


async def test_new_certificates_are_taken_as_they_come(
    upstream: ScriptedUpstream,
    authority: Authority,
    pair: tuple[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    own = await asyncio.to_thread(copy, pair, tmp_path)
    newer = await asyncio.to_thread(authority.issue, "newer", "DNS:localhost")
    context = trusting(authority)
    async with plain_proxy(upstream.url, secured(own)) as proxy:
        async with raw_client(proxy.plain, context) as client:
            before = name_of(client)
            await asyncio.to_thread(shutil.copy, newer[0], own[0])  # its key is still to come
            await proxy.app._look_at_files()
            async with raw_client(proxy.plain, context) as other:
                assert name_of(other) == before
            assert "the old ones stay" in caplog.text
            await asyncio.to_thread(copy, newer, tmp_path)
            await proxy.app._look_at_files()
            async with raw_client(proxy.plain, context) as other:
                assert name_of(other) != before
            assert (await client.ask("GET", "/")).status == 200
        assert "were read again" in caplog.text


async def test_a_reload_reads_them_and_turns_tls_on_and_off(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    async with plain_proxy(upstream.url) as proxy, raw_client(proxy.plain) as plain:
        assert (await plain.ask("GET", "/")).status == 200
        await proxy.reload(secured(pair, authority.ca))
        # A connection from before has no certificate.
        assert (await plain.ask("GET", "/")).status == 401
        context = trusting(authority, app)
        async with raw_client(proxy.plain, context) as client:
            assert (await client.ask("GET", "/")).status == 200
            await proxy.reload(
                secured(pair), KEYS, {"listeners": {HERE: {"tls": {"client_ca": None}}}}
            )
            assert (await client.ask("GET", "/")).status == 401  # its authority is none any more
        await proxy.reload({"listeners": None, "access": None})
        assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_files_that_will_not_do_leave_everything_as_it_was(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    async with plain_proxy(upstream.url, secured(pair)) as proxy:
        for wrong in (
            secured((pair[0], app[1])),
            secured(pair, pair[1]),
            secured(("none", "none")),
        ):
            with pytest.raises(tls.TlsError):
                await proxy.reload(wrong)
        assert (await ask(proxy.plain, "GET", "/", tls=trusting(authority))).status == 200


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "message"),
    [
        ("none.pem", "{key}", None, "the certificate none.pem with the key"),
        ("{cert}", "{cert}", None, "cannot be used"),
        ("{cert}", "{key}", "none.pem", "the CA file none.pem cannot be used"),
        ("{cert}", "{key}", "{key}", "the CA file .*key cannot be used"),
    ],
)
def test_a_wrong_file_is_named(
    pair: tuple[str, str], cert: str, key: str, client_ca: str | None, message: str
) -> None:
    names = {"cert": pair[0], "key": pair[1]}
    settings = ListenerTls(
        cert=cert.format(**names),
        key=key.format(**names),
        client_ca=client_ca and client_ca.format(**names),
    )
    with pytest.raises(tls.TlsError, match=message):
        tls.listener_context(settings)


# Other listeners.


async def test_the_admin_pages_may_have_it_too(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    at = "localhost:0"
    there: dict[str, Any] = {"admin": {"listen": at, "callers": ["cert:app.internal"]}}
    async with plain_proxy(upstream.url, secured(pair, authority.ca, at), there) as proxy:
        assert proxy.admin.startswith("https://")
        context = trusting(authority, app)
        assert (await ask(proxy.admin, "GET", "/", tls=context)).status == 200
        assert (await ask(proxy.plain, "GET", "/")).status == 200
        await proxy.reload(secured(pair, None, at), {"admin": {"callers": None}})
        assert (await ask(proxy.admin, "GET", "/", tls=trusting(authority))).status == 200


async def test_a_unix_socket_may_have_it_too(
    upstream: ScriptedUpstream, authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/p.sock"
        there = {"routes": {"plain": {"listen": f"unix:{path}"}}}
        change = secured(pair, authority.ca, f"unix:{path}")
        async with plain_proxy(upstream.url, change, there) as proxy:
            streams = await asyncio.open_unix_connection(
                path, ssl=trusting(authority, app), server_hostname="localhost"
            )
            streams[1].write(request("GET", "/", [("Connection", "close")]))
            assert (await streams[0].read()).endswith(b"served")
            streams[1].close()
            (line,) = proxy.lines()
            assert line["identity"] == "cert:app.internal"
            assert line["caller"].startswith("unix:pid=")


async def test_workers_ask_for_certificates_too(
    authority: Authority, pair: tuple[str, str], app: tuple[str, str]
) -> None:
    async with (
        ScriptedUpstream([answer(b"served")] * 9) as upstream,
        workers.running(workers.plain(upstream.url, secured(pair, authority.ca))) as company,
    ):
        for url in (company.url("plain"), company.admin):
            assert url.startswith("https://")
            got = await ask(url, "GET", "/", tls=trusting(authority, app))
            assert got.status == 200


def test_an_address_is_one_however_it_is_written() -> None:
    files = {"tls": {"cert": "a", "key": "b"}}
    route = {"listen": "LOCALHOST:81", "upstream": "https://x.example", "credential": "none"}
    settings = Settings.model_validate(
        {"routes": {"a": route}, "listeners": {"localhost:0081": files}}
    )
    assert settings.listener(settings.routes["a"].listen).tls is not None
