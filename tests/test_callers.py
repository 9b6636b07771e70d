"""Callers that have to be known, through the whole proxy: keys and users, by route."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from proxy import config
from proxy.config.settings import Settings
from proxy.generation import Generation
from proxy.identity import Keys
from proxy.sandbox import StandIns
from tests.support import (
    Proxy,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    until,
)
from tests.workers import support as workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support import Message, UpstreamWire

KEY, OTHER = "canary-key-7d41fd", "canary-other-0c2b9"
BY_KEY = ("X-Ekeko-Key", KEY)
KEYS: dict[str, Any] = {"access": {"keys": {"billing": KEY, "records": OTHER}}}
ADMIN: dict[str, Any] = {"admin": {"listen": "127.0.0.1:0"}}
PAGE = "http://localhost:3000"
ME = os.getuid()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream([answer(b"served")] * 9) as upstream:
        yield upstream


@pytest.fixture
async def proxy(upstream: ScriptedUpstream) -> AsyncIterator[Proxy]:
    async with plain_proxy(upstream.url, KEYS, ADMIN) as proxy:
        yield proxy


@pytest.fixture
def sock() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{folder}/p.sock"


def refused(got: Message) -> tuple[int, str | None]:
    assert b"canary" not in got.body
    return got.status, got.get("X-Ekeko-Error")


UNKNOWN = (401, "caller_unknown")
FORBIDDEN = (403, "caller_not_allowed")


# Keys.


async def test_a_key_lets_its_caller_pass_and_stays_behind(
    upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    for key in (KEY, OTHER):
        assert (await ask(proxy.plain, "GET", "/x", [("X-Ekeko-Key", key)])).status == 200
    assert b"canary" not in b"".join(bytes(wire.received) for wire in upstream.connections)
    assert [line["identity"] for line in proxy.lines()] == ["billing", "records"]
    assert proxy.lines()[0]["caller"] == "127.0.0.1"


@pytest.mark.parametrize(
    "fields", [[], [("X-Ekeko-Key", "canary-wrong-key-1")], [("Authorization", f"Bearer {KEY}")]]
)
async def test_nobody_else_passes(
    upstream: ScriptedUpstream, proxy: Proxy, fields: list[tuple[str, str]]
) -> None:
    got = await ask(proxy.plain, "GET", "/x", fields)
    assert refused(got) == UNKNOWN
    assert got.get("WWW-Authenticate") == 'Ekeko-Key realm="ekeko", field="X-Ekeko-Key"'
    assert upstream.requests == []
    (line,) = proxy.lines()
    assert (line["status"], line["code"], line["identity"]) == (401, "caller_unknown", None)
    metrics = (await ask(proxy.admin, "GET", "/metrics", [BY_KEY])).body.decode()
    assert 'ekeko_proxy_errors_total{code="caller_unknown",route="plain"} 1.0' in metrics
    assert "canary" not in metrics


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize(
    "name", ["X-Ekeko-Key", "x-ekeko-key", "x_ekeko_key", "X-Ekeko.Key", "X_EKEKO-KEY"]
)
async def test_the_field_never_goes_upstream(
    upstream: ScriptedUpstream, name: str, *, configured: bool
) -> None:
    async with plain_proxy(upstream.url, KEYS if configured else {}) as proxy:
        assert (await ask(proxy.plain, "GET", "/", [(name, KEY)])).status == 200
        (got,) = upstream.requests
        assert "ekeko" not in str(got.fields).lower()


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("second", [BY_KEY, ("x_ekeko.key", KEY), ("X-Ekeko-Key", OTHER)])
async def test_two_keys_in_a_request_are_refused(
    upstream: ScriptedUpstream, second: tuple[str, str], *, configured: bool
) -> None:
    async with plain_proxy(upstream.url, KEYS if configured else {}) as proxy:
        got = await ask(proxy.plain, "GET", "/", [BY_KEY, second])
        assert refused(got) == (400, "bad_request")
        assert upstream.requests == []


async def test_connection_cannot_take_the_key_away(
    upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    fields = [("Connection", "X-Ekeko-Key, close")]
    assert refused(await ask(proxy.plain, "GET", "/", fields)) == UNKNOWN
    assert (await ask(proxy.plain, "GET", "/", [*fields, BY_KEY])).status == 200
    assert "ekeko" not in str(upstream.requests[0].fields).lower()


async def test_a_key_does_not_lift_the_guards_rules(
    upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    async with raw_client(proxy.plain) as client:
        await client.send(
            f"GET / HTTP/1.1\r\nHost: evil.example\r\nX-Ekeko-Key: {KEY}\r\n\r\n".encode()
        )
        assert refused(await client.answer()) == (421, "host_not_allowed")
    for field in (("Origin", PAGE), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")):
        got = await ask(proxy.plain, "GET", "/", [BY_KEY, field])
        assert refused(got) == (403, "origin_not_allowed")
    assert upstream.requests == []


async def test_the_guard_speaks_before_a_key_is_asked_for(proxy: Proxy) -> None:
    got = await ask(proxy.plain, "GET", "/", [("Origin", "https://evil.example")])
    assert refused(got) == (403, "origin_not_allowed")


# What those who are not known may learn.

TWO_KINDS: dict[str, Any] = {
    "routes": {
        "plain": {"prefix": "/there", "allow": ["GET /there/**"]},
        "eka": {
            "listen": "127.0.0.1:0",
            "upstream": "https://api.eka.care",
            "credential": "eka",
            "prefix": "/there",
        },
    },
    "credentials": {"eka": {"kind": "eka", "client_id": "a", "client_secret": "b"}},
}
TWICE = [("X-Eka-Workspace", "a"), ("X-Eka-Workspace", "b")]


@pytest.mark.parametrize("route", ["plain", "eka"])
@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET", "/there/x", []),
        ("POST", "/there/x", []),
        ("GET", "/there/%2e%2e/x", []),
        ("GET", "/there/x", TWICE),
        ("OPTIONS", "/there/x", [("Access-Control-Request-Method", "GET")]),
        ("POST", "/there/connect-auth/v1/account/login", []),
        ("GET", "/there/x", [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
    ],
)
async def test_a_stranger_cannot_tell_a_route_from_none(
    upstream: ScriptedUpstream,
    route: str,
    method: str,
    target: str,
    fields: list[tuple[str, str]],
) -> None:
    async with plain_proxy(upstream.url, KEYS, TWO_KINDS) as proxy:
        asked = [("X-Request-Id", "same"), *fields]
        there = await ask(proxy.url(route), method, target, asked)
        nowhere = await ask(proxy.url(route), method, "/elsewhere", asked)
        assert refused(there) == UNKNOWN
        assert there == nowhere


@pytest.mark.parametrize(
    "fields", [[("Origin", "https://evil.example")], [("X-Request-Id", "a"), ("X-Request-Id", "b")]]
)
async def test_nor_by_what_is_refused_before(
    upstream: ScriptedUpstream, fields: list[tuple[str, str]]
) -> None:
    async with plain_proxy(upstream.url, KEYS, TWO_KINDS) as proxy:
        for target in ("/there/x", "/elsewhere"):
            got = await ask(proxy.plain, "GET", target, fields)
            assert got.json()["route"] == ""


# Routes.

FOR_BILLING: dict[str, Any] = {"routes": {"plain": {"callers": ["billing"]}}}


async def test_a_route_serves_the_callers_that_it_names(upstream: ScriptedUpstream) -> None:
    async with plain_proxy(upstream.url, KEYS, FOR_BILLING) as proxy:
        assert (await ask(proxy.plain, "GET", "/", [BY_KEY])).status == 200
        got = await ask(proxy.plain, "GET", "/", [("X-Ekeko-Key", OTHER)])
        assert refused(got) == FORBIDDEN
        assert got.get("WWW-Authenticate") is None
        assert refused(await ask(proxy.plain, "GET", "/")) == UNKNOWN
        assert len(upstream.requests) == 1
        assert [line["identity"] for line in proxy.lines()] == ["billing", "records", None]


async def test_a_websocket_needs_what_any_request_needs(
    upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    wish = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    assert refused(await ask(proxy.plain, "GET", "/", wish)) == UNKNOWN
    assert upstream.connections == []

    async def switch(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
        )
        await wire.rest()

    async with (
        ScriptedUpstream(switch) as switching,
        plain_proxy(switching.url, KEYS) as other,
        raw_client(other.plain) as client,
    ):
        await client.send(request("GET", "/", [*wish, BY_KEY]))
        assert (await client.head()).status == 101
        assert await client.rest_of(b"hello")
        client.close()
        await until(other.lines)
        assert (other.lines()[0]["status"], other.lines()[0]["identity"]) == (101, "billing")
        assert "ekeko" not in str(switching.requests[0].fields).lower()


# Pages.


async def test_a_page_of_a_listed_origin_asks_first_and_then_needs_a_key(
    upstream: ScriptedUpstream,
) -> None:
    async with plain_proxy(upstream.url, KEYS, {"access": {"origins": [PAGE]}}) as proxy:
        asked = [
            ("Origin", PAGE),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "x-ekeko-key"),
        ]
        got = await ask(proxy.plain, "OPTIONS", "/", asked)
        assert (got.status, got.get("Access-Control-Allow-Headers")) == (204, "x-ekeko-key")
        got = await ask(proxy.plain, "GET", "/", [("Origin", PAGE)])
        assert refused(got) == UNKNOWN
        assert got.get("Access-Control-Allow-Origin") == PAGE
        got = await ask(proxy.plain, "GET", "/", [("Origin", PAGE), BY_KEY])
        assert (got.status, got.get("Access-Control-Allow-Origin")) == (200, PAGE)
        assert len(upstream.requests) == 1


# Users of unix sockets.


async def test_a_listed_user_needs_no_key(upstream: ScriptedUpstream, sock: str) -> None:
    there = {"routes": {"plain": {"listen": sock}}, "access": {"uids": [ME]}}
    async with plain_proxy(upstream.url, there) as proxy:
        assert (await ask(sock, "GET", "/")).status == 200
        (line,) = proxy.lines()
        assert line["identity"] == f"uid:{ME}"
        assert line["caller"].startswith("unix:pid=")


async def test_a_user_that_is_not_listed_is_unknown_but_for_a_key(
    upstream: ScriptedUpstream, sock: str
) -> None:
    there = {"routes": {"plain": {"listen": sock}}, "access": {"uids": [ME + 1]}}
    async with plain_proxy(upstream.url, there) as proxy:
        assert refused(await ask(sock, "GET", "/")) == UNKNOWN
        await proxy.reload(KEYS)
        assert (await ask(sock, "GET", "/", [BY_KEY])).status == 200
        assert refused(await ask(sock, "GET", "/")) == UNKNOWN
        assert len(upstream.requests) == 1


async def test_users_alone_ask_nothing_of_callers_on_tcp(upstream: ScriptedUpstream) -> None:
    async with plain_proxy(upstream.url, {"access": {"uids": [ME]}}) as proxy:
        assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_a_route_names_users_too(upstream: ScriptedUpstream, sock: str) -> None:
    there: dict[str, Any] = {
        "routes": {"plain": {"listen": sock, "callers": [f"uid:{ME}"]}},
        "access": {"uids": [ME]},
    }
    async with plain_proxy(upstream.url, there, KEYS) as proxy:
        # A key beside it does no harm, and the log tells by which name the caller was served.
        for fields in ([], [BY_KEY]):
            assert (await ask(sock, "GET", "/", fields)).status == 200
        assert [line["identity"] for line in proxy.lines()] == [f"uid:{ME}"] * 2
        await proxy.reload({"routes": {"plain": {"callers": ["billing"]}}})
        assert refused(await ask(sock, "GET", "/")) == FORBIDDEN
        assert (await ask(sock, "GET", "/", [BY_KEY])).status == 200


# Reloads and rotation.


async def test_a_reload_holds_for_connections_that_are_open(upstream: ScriptedUpstream) -> None:
    async with plain_proxy(upstream.url) as proxy, raw_client(proxy.plain) as client:
        assert (await client.ask("GET", "/")).status == 200
        await proxy.reload(KEYS)
        assert refused(await client.ask("GET", "/")) == UNKNOWN
        assert (await client.ask("GET", "/", [BY_KEY])).status == 200
        await proxy.reload({"routes": {"plain": {"callers": ["records"]}}})
        assert refused(await client.ask("GET", "/", [BY_KEY])) == FORBIDDEN
        await proxy.reload(
            {"routes": {"plain": {"callers": None}}, "access": {"keys": {"billing": None}}}
        )
        assert refused(await client.ask("GET", "/", [BY_KEY])) == UNKNOWN
        await proxy.reload({"access": None})
        assert (await client.ask("GET", "/")).status == 200


async def test_a_listed_user_is_one_until_a_reload(upstream: ScriptedUpstream, sock: str) -> None:
    there = {"routes": {"plain": {"listen": sock}}, "access": {"uids": [ME]}}
    async with plain_proxy(upstream.url, there) as proxy, raw_client(sock) as client:
        assert (await client.ask("GET", "/")).status == 200
        await proxy.reload({"access": {"uids": [ME + 1]}})
        assert refused(await client.ask("GET", "/")) == UNKNOWN
        await proxy.reload({"access": {"uids": [ME]}})
        assert (await client.ask("GET", "/")).status == 200


async def write(file: Path, text: str) -> None:
    await asyncio.to_thread(file.write_text, text)


async def test_a_key_that_changes_in_its_file_is_used_without_a_restart(
    upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "key"
    await write(file, f"{KEY}\n")
    keys = {"access": {"keys": {"billing": {"file": str(file)}, "records": OTHER}}}
    async with plain_proxy(upstream.url, keys) as proxy, raw_client(proxy.plain) as client:
        assert (await client.ask("GET", "/", [BY_KEY])).status == 200
        await write(file, "canary-rotated-1a2b")
        await proxy.app._look_at_files()
        assert refused(await client.ask("GET", "/", [BY_KEY])) == UNKNOWN
        rotated = [("X-Ekeko-Key", "canary-rotated-1a2b")]
        assert (await client.ask("GET", "/", rotated)).status == 200
        for flawed in ("canary-short", OTHER):
            await write(file, flawed)
            await proxy.app._look_at_files()
            assert (await client.ask("GET", "/", rotated)).status == 200
            # What a worker that starts now is told.
            assert proxy.app._current.settings.access.keys["billing"].reveal() == rotated[0][1]
        assert "access.keys.billing is too short: expected 16 characters" in caplog.text
        assert "access.keys.billing is the same key as 'records'" in caplog.text
        assert "canary" not in caplog.text


async def test_a_new_key_is_not_taken_for_as_long_as_another_caller_has_it(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("billing", "records")}
    await write(files["billing"], KEY)
    await write(files["records"], OTHER)
    keys = {"access": {"keys": {name: {"file": str(file)} for name, file in files.items()}}}
    async with plain_proxy(upstream.url, keys) as proxy:
        await write(files["billing"], OTHER)
        await write(files["records"], "canary-short")
        await proxy.app._look_at_files()
        find = proxy.app._current.keys.find
        assert (find(KEY.encode()), find(OTHER.encode())) == ("billing", "records")


async def test_a_rotated_key_is_no_credentials(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    await write(file, KEY)
    change: dict[str, Any] = {
        "routes": {"plain": {"credential": "keys"}},
        "credentials": {"keys": {"kind": "bearer", "token": "t", "origins": [upstream.url]}},
        "access": {"keys": {"billing": {"file": str(file)}}},
    }
    async with plain_proxy(upstream.url, change) as proxy:
        rekeyed: list[object] = []
        monkeypatch.setattr(type(proxy.route("plain").credential), "rekey", rekeyed.append)
        await write(file, OTHER)
        await proxy.app._look_at_files()
        assert (await ask(proxy.plain, "GET", "/", [("X-Ekeko-Key", OTHER)])).status == 200
        assert rekeyed == []


# The admin pages.


async def test_admin_pages_ask_too_but_probes_do_not(proxy: Proxy) -> None:
    for target in ("/", "/metrics", "/status.json", "/nowhere"):
        got = await ask(proxy.admin, "GET", target)
        assert refused(got) == UNKNOWN
        assert got.get("WWW-Authenticate")
    assert refused(await ask(proxy.admin, "POST", "/quit")) == UNKNOWN
    assert not proxy.app._stopping.is_set()
    for target in ("/livez", "/readyz", "/readyz?verbose"):
        assert (await ask(proxy.admin, "GET", target)).status == 200
    for target in ("/", "/metrics", "/status.json"):
        got = await ask(proxy.admin, "GET", target, [BY_KEY])
        assert got.status == 200
        assert b"canary" not in got.body


async def test_the_admin_pages_may_be_for_some_alone(
    upstream: ScriptedUpstream,
) -> None:
    async with plain_proxy(upstream.url, KEYS, ADMIN, {"admin": {"callers": ["records"]}}) as proxy:
        assert refused(await ask(proxy.admin, "POST", "/quit", [BY_KEY])) == FORBIDDEN
        assert (await ask(proxy.admin, "GET", "/", [("X-Ekeko-Key", OTHER)])).status == 200
        assert (await ask(proxy.admin, "GET", "/livez")).status == 200
        assert (await ask(proxy.plain, "GET", "/", [BY_KEY])).status == 200
        async with raw_client(proxy.admin) as client:
            await proxy.reload({"admin": {"callers": ["billing"]}})
            assert (await client.ask("GET", "/", [BY_KEY])).status == 200


# Several processes, the sandbox.


async def test_workers_know_callers_too(tmp_path: Path) -> None:
    file = tmp_path / "key"
    await write(file, KEY)
    access = {"access": {"keys": {"billing": {"file": str(file)}}}}
    async with (
        ScriptedUpstream([answer()] * 99) as upstream,
        workers.running(workers.plain(upstream.url, access)) as company,
    ):
        for url in (company.url("plain"), company.admin):
            assert refused(await ask(url, "GET", "/")) == UNKNOWN
            assert (await ask(url, "GET", "/", [BY_KEY])).status == 200
        await write(file, OTHER)
        await company.supervisor._look_at_secrets()
        await until(lambda: all(app._current.keys.find(OTHER.encode()) for app in company.apps))
        for url in (company.url("plain"), company.admin):
            assert refused(await ask(url, "GET", "/", [BY_KEY])) == UNKNOWN
            assert (await ask(url, "GET", "/", [("X-Ekeko-Key", OTHER)])).status == 200
        assert "canary" not in json.dumps(company.log())
        assert {line["identity"] for line in company.log()} == {None, "billing"}


async def test_no_key_reaches_a_vendor(upstream: ScriptedUpstream) -> None:
    async with StandIns() as stand_ins:
        there: dict[str, Any] = {
            "routes": {"eko": {"upstream": upstream.url}},
            "credentials": {"eko": {"origins": [upstream.url]}},
        }
        async with proxy_in_front(stand_ins, KEYS, there) as front:
            assert (await ask(front.eka, "GET", "/x", [BY_KEY])).status == 200
            assert (await ask(front.eko, "GET", "/x", [BY_KEY])).status == 200
    (got,) = upstream.requests
    assert got.get("developer_key")
    assert KEY not in str(got.fields)


# The second line.


def test_a_route_that_names_callers_serves_nobody_where_there_is_no_way_to_tell() -> None:
    """`config.load` refuses this; settings that were made in another way are not trusted."""
    route = {"listen": "127.0.0.1:1", "upstream": "http://127.0.0.1:1", "credential": "none"}
    for change in ({"routes": {"a": {**route, "callers": ["x"]}}}, {"admin": {"callers": ["x"]}}):
        settings = Settings.model_validate({"routes": {"a": route}, **change})
        generation = Generation(settings, {}, {}, Keys({}), {})
        listen = settings.routes["a"].listen if "routes" in change else settings.admin.listen
        assert listen is not None
        assert generation.callers(listen) is not None


def test_what_a_start_finds_wrong_with_keys_shows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("A", KEY), ("B", KEY), ("C", "canary-short")):
        monkeypatch.setenv(f"CANARY_{name}", value)
    path = tmp_path / "c.yaml"
    path.write_text(
        "routes: {a: {listen: '127.0.0.1:1', upstream: 'https://x.example', credential: none}}\n"
        "access:\n  keys:\n"
        "    a: {env: CANARY_A}\n    b: {env: CANARY_B}\n    c: {env: CANARY_C}\n"
    )
    notes = [str(note) for note in config.notes(config.load(path))]
    with pytest.raises(config.ConfigError) as caught:
        config.read(path)
    wrong = [str(problem) for problem in caught.value.problems]
    assert (
        wrong
        == notes
        == [
            f"{path}:4:8: access.keys.a: is the same key as 'b': expected one of its own",
            f"{path}:5:8: access.keys.b: is the same key as 'a': expected one of its own",
            f"{path}:6:8: access.keys.c: is too short: expected 16 characters or more",
        ]
    )
