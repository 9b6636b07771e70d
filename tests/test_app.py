"""A proxy's life: drain, reload, secrets that change, and the passing of time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from proxy.config import Settings
from proxy.sandbox import SANDBOX_CLIENT_SECRET, Fault, StandIns
from tests.support import (
    Broken,
    ManualClock,
    ScriptedUpstream,
    answer,
    ask,
    merged,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support import Proxy, Running, UpstreamWire

ADMIN: dict[str, Any] = {"admin": {"listen": "127.0.0.1:0"}}


class Held:
    """An upstream's play that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def __call__(self, wire: UpstreamWire) -> None:
        await wire.request()
        await self.may_answer.wait()
        await wire.send(answer(b"in the end"))
        await wire.rest()


@contextlib.asynccontextmanager
async def held(*changes: dict[str, Any]) -> AsyncIterator[tuple[Held, ScriptedUpstream, Proxy]]:
    play = Held()
    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, ADMIN, *changes) as proxy,
    ):
        yield play, upstream, proxy
        play.may_answer.set()


# The end.


async def test_what_is_in_flight_is_finished_and_nothing_new_accepted() -> None:
    async with held() as (play, upstream, proxy):
        url = proxy.plain
        async with raw_client(url) as busy, raw_client(url) as idle, raw_client(proxy.admin) as ops:
            await busy.send(request("GET", "/"))
            await until(lambda: upstream.requests)
            ending = asyncio.create_task(proxy.app.run())
            proxy.app.stop()
            assert await idle.rest() == b""  # an idle connection is closed
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*url.removeprefix("http://").split(":"))
            unready = await ops.ask("GET", "/readyz")
            assert unready.status == 503
            assert "draining" in str(unready.json())
            assert (await ops.ask("GET", "/livez")).status == 200
            assert not ending.done()
            play.may_answer.set()
            got = await busy.answer()
            assert got.body == b"in the end"
            assert await busy.rest() == b""
            await ending
            assert await ops.rest() == b""


async def test_an_upload_goes_on_while_the_proxy_drains() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.send(answer((await wire.request()).body))
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Content-Length", "10")]), b"hello")
        await until(lambda: upstream.connections)
        ending = asyncio.create_task(proxy.app.run())
        proxy.app.stop()
        await until(lambda: proxy.app._leaving)
        await client.send(b"world")
        assert (await client.answer()).body == b"helloworld"
        await ending


async def test_a_drain_ends_in_time_whatever_is_in_flight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        held({"limits": {"drain": 0}}) as (_, upstream, proxy),
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        proxy.app.stop()
        await proxy.app.run()
        with pytest.raises(Broken):
            await client.answer()
        assert "1 requests were still in flight" in caplog.text


async def test_a_post_to_quit_drains_and_ends_the_proxy() -> None:
    async with held() as (play, upstream, proxy), raw_client(proxy.plain) as client:
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        ending = asyncio.create_task(proxy.app.run())
        assert (await ask(proxy.admin, "POST", "/quit")).status == 202
        play.may_answer.set()
        assert (await client.answer()).body == b"in the end"
        await ending


async def test_a_quit_is_answered_before_an_idle_proxy_ends() -> None:
    async with held() as (_, _, proxy):
        ending = asyncio.create_task(proxy.app.run())
        got = await ask(proxy.admin, "POST", "/quit")
        assert (got.status, got.json()) == (202, {"status": "draining"})
        await ending


# Another configuration.


async def test_routes_change_while_listeners_and_connections_stay() -> None:
    async with (
        ScriptedUpstream([answer(b"old")] * 9) as one,
        ScriptedUpstream([answer(b"new")] * 9) as two,
        plain_proxy(one.url, ADMIN) as proxy,
        raw_client(proxy.plain) as client,
    ):
        before = proxy.app.addresses()
        assert (await client.ask("GET", "/")).body == b"old"
        await proxy.reload({"routes": {"plain": {"upstream": two.url, "allow": ["GET /**"]}}})
        assert proxy.app.addresses() == before
        assert (await client.ask("GET", "/")).body == b"new"
        assert (await client.ask("POST", "/")).status == 403


async def test_routes_come_and_go_with_their_listeners() -> None:
    async with (
        ScriptedUpstream([answer(b"ok")] * 9) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/")).status == 200
        old = proxy.plain
        other = {"listen": "127.0.0.1:0", "upstream": upstream.url, "credential": "none"}
        await proxy.reload({"routes": {"plain": None, "other": other}})
        assert (await ask(proxy.url("other"), "GET", "/")).body == b"ok"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*old.removeprefix("http://").split(":"))
        assert await client.rest() == b""


async def test_a_reload_that_cannot_be_done_changes_nothing() -> None:
    async with (
        ScriptedUpstream([answer(b"ok")] * 9) as upstream,
        plain_proxy(upstream.url, ADMIN) as proxy,
        raw_client(proxy.plain) as client,
    ):
        before = proxy.app.addresses()
        taken = {"listen": f"127.0.0.1:{upstream.port}"}
        for change in (
            {"routes": {"plain": {"allow": []}, "b": merged(proxy.raw["routes"]["plain"], taken)}},
            {"routes": {"plain": {"allow": []}}, "admin": taken},
        ):
            with pytest.raises(OSError, match="in use"):
                await proxy.reload(change)
            assert proxy.app.addresses() == before
            assert (await client.ask("GET", "/")).body == b"ok"
            assert (await ask(proxy.admin, "GET", "/readyz")).status == 200


async def test_a_reload_that_cannot_be_done_leaves_the_old_secrets_in_use(
    front: Running,
) -> None:
    assert (await ask(front.eka, "GET", "/x")).status == 200
    wrong = {
        "credentials": {"eka": {"client_secret": "another"}},
        "admin": {"listen": front.eka.removeprefix("http://")},
    }
    with pytest.raises(OSError, match="in use"):
        await front.reload(wrong)
    front.stand_ins.eka.revoke_all(sessions=True)
    assert (await ask(front.eka, "GET", "/x")).status == 200
    assert front.stand_ins.eka.login_failures == 0


async def test_a_credential_of_a_reload_that_failed_never_logs_in_again() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        proxy_in_front(stand_ins, clock=clock) as front,
    ):
        assert (await ask(front.eka, "GET", "/x")).status == 200
        wrong = {
            "credentials": {"eka": {"client_id": "another"}},
            "admin": {"listen": front.eka.removeprefix("http://")},
        }
        with pytest.raises(OSError, match="in use"):
            await front.reload(wrong)
        for _ in range(10):
            await pass_time(front, clock, 600)
        assert stand_ins.eka.login_failures == 0


async def test_tokens_still_valid_are_kept(front: Running) -> None:
    assert (await ask(front.eka, "GET", "/x")).status == 200
    await front.reload({"routes": {"eka": {"max_body": "1MiB"}}})
    assert (await ask(front.eka, "GET", "/x")).status == 200
    assert front.stand_ins.eka.logins == 1


async def test_a_credential_that_is_gone_logs_in_no_more() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        proxy_in_front(stand_ins, clock=clock) as front,
    ):
        assert (await ask(front.eka, "GET", "/x")).status == 200
        await front.reload({"routes": {"eka": None}, "credentials": {"eka": None}})
        stand_ins.eka.arrived = 0
        for _ in range(10):
            await pass_time(front, clock, 600)
        assert stand_ins.eka.arrived == 0


async def test_requests_in_flight_are_finished_by_the_configuration_they_began_with() -> None:
    async with held() as (play, upstream, proxy), raw_client(proxy.plain) as client:
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        other = {"listen": "127.0.0.1:0", "upstream": upstream.url, "credential": "none"}
        await proxy.reload({"routes": {"plain": None, "other": other}})
        await proxy.app._tick()
        play.may_answer.set()
        assert (await client.answer()).body == b"in the end"
        await until(upstream.connections[0].reader.at_eof)  # and then nothing is kept


async def test_requests_in_flight_on_a_route_that_is_gone_are_drained_too() -> None:
    async with held() as (play, upstream, proxy), raw_client(proxy.plain) as client:
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        other = {"listen": "127.0.0.1:0", "upstream": upstream.url, "credential": "none"}
        await proxy.reload({"routes": {"plain": None, "other": other}})
        ending = asyncio.create_task(proxy.app.run())
        proxy.app.stop()
        await until(lambda: not proxy.app._listeners or proxy.app._leaving)
        play.may_answer.set()
        assert (await client.answer()).body == b"in the end"
        await ending


async def test_limits_of_the_new_configuration_hold() -> None:
    async with (
        ScriptedUpstream([answer()] * 9) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.ask("GET", "/")
        await proxy.reload({"limits": {"connections": 1}, "log": {"access": False}})
        assert (await ask(proxy.plain, "GET", "/")).status == 503
        before = len(proxy.lines())
        await client.ask("GET", "/")
        assert len(proxy.lines()) == before


# Secrets in files.


async def test_a_secret_that_changes_in_its_file_is_used_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "secret"
    await write(file, "canary-old")
    change = {"credentials": {"eka": {"client_secret": {"file": str(file)}}}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, change) as front:
        got = await ask(front.eka, "GET", "/x")
        assert got.get("X-Ekeko-Error") == "credential_rejected"
        await write(file, f"{SANDBOX_CLIENT_SECRET}\n")
        with caplog.at_level(logging.INFO):
            await front.app._reload_secrets()
        await until(lambda: "was read again" in caplog.text)  # by this look or the chore's own
        assert (await ask(front.eka, "GET", "/x")).status == 200
        assert "credentials.eka.client_secret" in caplog.text
        assert SANDBOX_CLIENT_SECRET not in caplog.text


async def test_a_secrets_file_that_cannot_be_read_leaves_the_old_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "secret"
    await write(file, SANDBOX_CLIENT_SECRET)
    change = {"credentials": {"eka": {"client_secret": {"file": str(file)}}}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, change) as front:
        await asyncio.to_thread(file.unlink)
        await front.app._reload_secrets()
        assert "client_secret" in caplog.text
        stand_ins.eka.revoke_all(sessions=True)
        assert (await ask(front.eka, "GET", "/x")).status == 200


async def write(file: Path, text: str) -> None:
    await asyncio.to_thread(file.write_text, text)


# Time.


@pytest.mark.interpreted
async def test_time_goes_on_after_a_tick_that_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, clock=clock) as proxy,
    ):
        pool = proxy.route("plain").pool
        swept = []

        def sweep(now: float) -> None:
            swept.append(now)
            if len(swept) == 1:
                raise RuntimeError("a bug")

        await until(lambda: clock.sleepers)
        monkeypatch.setattr(pool, "sweep", sweep)
        await clock.advance(1)
        assert len(swept) >= 3
        assert "a chore failed" in caplog.text
        assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_a_token_is_renewed_ahead_of_its_expiry_in_the_background() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        proxy_in_front(stand_ins, clock=clock) as front,
    ):
        assert (await ask(front.eka, "GET", "/x")).status == 200
        for _ in range(20):
            await pass_time(front, clock, 90)
            expires_in = front.app.status()["credentials"][0]["token_expires_in"]
            assert expires_in is not None
            assert expires_in > 0
        assert stand_ins.eka.refreshes_v2 == 1
        assert stand_ins.eka.logins == 1


async def test_a_token_still_valid_is_used_while_renewal_fails() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        proxy_in_front(stand_ins, clock=clock) as front,
    ):
        assert (await ask(front.eka, "GET", "/x")).status == 200
        stand_ins.eka.faults.add(Fault("POST /connect-auth", status=500, times=None))
        await pass_time(front, clock, 1700)
        assert (await ask(front.eka, "GET", "/x")).status == 200
        calls = stand_ins.eka.calls
        await pass_time(front, clock, 100)
        got = await ask(front.eka, "GET", "/x")
        assert (got.status, got.get("X-Ekeko-Error")) == (503, "credential_unavailable")
        assert stand_ins.eka.calls == calls  # an expired token is never sent


async def pass_time(front: Running, clock: ManualClock, seconds: float) -> None:
    """Let time pass, and what is due then be done."""
    await clock.advance(seconds)
    await front.app._tick()
    await until(lambda: not fetching(front))


def fetching(front: Running) -> bool:
    slots = list(front.app._tools.tokens._all)
    return any(slot._fetching is not None for slot in slots)


# A start that fails.


async def test_a_start_that_fails_leaves_nothing_open() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        raw = merged(proxy.raw, {"admin": {"listen": proxy.plain.removeprefix("http://")}})
        app = type(proxy.app)(
            Settings.model_validate(raw), clock=ManualClock(), write=lambda _: None
        )
        with pytest.raises(OSError, match="in use"):
            await app.start()
        assert app._listeners == {}
