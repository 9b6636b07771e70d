"""The admin listener: what it tells, to whom, and what it never tells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import (
    SANDBOX_ACCESS_KEY,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_DEVELOPER_KEY,
    SANDBOX_SHARING_KEYS,
    Fault,
    StandIns,
)
from tests.support import (
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    until,
)

if TYPE_CHECKING:
    from tests.support import Running, UpstreamWire

PAGES = ["/", "/livez", "/readyz", "/metrics", "/status.json"]
ADMIN = {"admin": {"listen": "127.0.0.1:0"}}


@pytest.mark.parametrize("target", [*PAGES, "/quit", "/nowhere"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Origin", "https://evil.example")], 403),
        ([("Origin", "null")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
        ([("Sec-Fetch-Site", "same-site")], 403),
    ],
)
async def test_pages_of_other_origins_get_nothing(
    front: Running, target: str, fields: list[tuple[str, str]], status: int
) -> None:
    for method in ("GET", "POST"):
        got = await ask(front.admin, method, target, fields)
        assert (got.status, got.get("X-Ekeko-Error")) == (status, "origin_not_allowed")
    assert not front.app._stopping.is_set()


@pytest.mark.parametrize("target", [*PAGES, "/quit"])
async def test_a_rebound_name_gets_nothing(front: Running, target: str) -> None:
    async with raw_client(front.admin) as client:
        await client.send(f"POST {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        got = await client.answer()
    assert (got.status, got.get("X-Ekeko-Error")) == (421, "host_not_allowed")
    assert not front.app._stopping.is_set()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_a_post_ends_the_proxy(front: Running, method: str) -> None:
    got = await ask(front.admin, method, "/quit")
    assert (got.status, got.get("Allow")) == (405, "POST")
    assert not front.app._stopping.is_set()


@pytest.mark.parametrize("target", PAGES)
async def test_pages_are_read_only(front: Running, target: str) -> None:
    got = await ask(front.admin, "POST", target)
    assert (got.status, got.get("Allow")) == (405, "GET")


async def test_what_is_no_page_is_404_and_what_is_no_request_400(front: Running) -> None:
    got = await ask(front.admin, "GET", "/nowhere")
    assert (got.status, got.json()["code"]) == (404, "no_route")
    async with raw_client(front.admin) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: canary\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.json()["code"]) == (400, "bad_request")
        assert b"canary" not in got.body


@pytest.mark.parametrize("target", PAGES)
async def test_pages_are_neither_cached_nor_guessed_at(front: Running, target: str) -> None:
    await until(lambda: not front.app.troubles())
    got = await ask(front.admin, "GET", target)
    assert got.get("Cache-Control") == "no-store"
    assert got.get("X-Content-Type-Options") == "nosniff"
    head = await ask(front.admin, "HEAD", target)
    assert (head.status, head.body) == (got.status, b"")


async def test_livez_tells_that_the_process_runs(front: Running) -> None:
    assert (await ask(front.admin, "GET", "/livez")).json() == {"status": "alive"}


async def test_readyz_waits_for_a_token_and_tells_why() -> None:
    async with StandIns() as stand_ins:
        stand_ins.eka.faults.add(Fault("POST /connect-auth", status=500, times=None))
        async with proxy_in_front(stand_ins) as front:
            await until(lambda: stand_ins.eka.arrived)
            await until(lambda: "500" in str(front.app.troubles()))
            got = await ask(front.admin, "GET", "/readyz")
            assert got.status == 503
            assert got.json()["status"] == "not ready"
            assert "status 500" in got.json()["reasons"]["credential eka"]


async def test_readyz_is_well_once_a_token_is_held(front: Running) -> None:
    await until(lambda: not front.app.troubles())
    got = await ask(front.admin, "GET", "/readyz")
    assert (got.status, got.json()) == (200, {"status": "ready", "reasons": {}})


async def test_readiness_does_not_depend_on_the_upstreams_health(front: Running) -> None:
    await until(lambda: not front.app.troubles())
    front.stand_ins.eka.faults.add(Fault("GET /", status=500, times=None))
    assert (await ask(front.eka, "GET", "/x")).status == 500
    assert (await ask(front.admin, "GET", "/readyz")).status == 200


async def test_status_tells_what_each_route_and_credential_does(front: Running) -> None:
    await ask(front.eka, "GET", "/x")
    await ask(front.eka, "GET", "//x")
    status = (await ask(front.admin, "GET", "/status.json")).json()
    eka = next(each for each in status["routes"] if each["name"] == "eka")
    assert eka == {
        "name": "eka",
        "listen": front.eka,
        "prefix": "/",
        "upstream": front.stand_ins.eka_url,
        "credential": "eka",
        "in_flight": 0,
        "upstream_connections": {"active": 0, "idle": 1, "opening": 0},
        "requests": 1,
        "errors": 0,
    }
    (credential,) = (each for each in status["credentials"] if each["name"] == "eka")
    assert 1600 < credential["token_expires_in"] <= 1800
    assert (credential["kind"], credential["trouble"]) == ("eka", None)


async def test_the_page_for_people_escapes_what_it_shows(
    front: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        front.app, "troubles", lambda: {"<script>alert(1)</script>": '"><img src=x>'}
    )
    got = await ask(front.admin, "GET", "/")
    assert got.status == 200
    assert (got.get("Content-Type") or "").startswith("text/html")
    assert "default-src 'none'" in (got.get("Content-Security-Policy") or "")
    assert b"<script" not in got.body
    assert b"<img" not in got.body
    assert b"&lt;script&gt;" in got.body
    assert front.eka.encode() in got.body


@pytest.mark.parametrize("target", PAGES)
async def test_no_page_shows_a_secret(
    front: Running, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await ask(front.eka, "GET", "/dr/v1/patient/176650465340471?name=canary")
        await ask(front.eka, "GET", "/x", [("X-Eka-Workspace", "clinic-a")])
        await ask(front.eko, "GET", "/ekoapi/v3/x")
        front.stand_ins.eka.revoke_all(sessions=True)
        await ask(front.eka, "GET", "/x")
        page = (await ask(front.admin, "GET", target)).body.decode()
    tokens = front.stand_ins.eka.tokens
    for secret in (
        SANDBOX_CLIENT_SECRET,
        SANDBOX_DEVELOPER_KEY,
        SANDBOX_ACCESS_KEY,
        *SANDBOX_SHARING_KEYS.values(),
        *tokens._by_access,
        *tokens._by_refresh,
        "176650465340471",
        "canary",
    ):
        assert secret not in page
        assert secret not in caplog.text


async def test_an_admin_listener_may_be_left_out() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        assert proxy.app.addresses()["admin"] is None


async def test_status_counts_what_is_in_flight() -> None:
    async def silent(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.rest()

    async with (
        ScriptedUpstream(silent) as upstream,
        plain_proxy(upstream.url, ADMIN) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        status: dict[str, Any] = (await ask(proxy.admin, "GET", "/status.json")).json()
        (route,) = status["routes"]
        assert route["in_flight"] == 1
        assert route["upstream_connections"] == {"active": 1, "idle": 0, "opening": 0}
        assert status["credentials"] == []
