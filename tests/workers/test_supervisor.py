"""A supervisor and its workers: one login, one page, one configuration, and none missing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.app import App
from proxy.credentials.eka import EkaTokens
from proxy.sandbox import SANDBOX_CLIENT_SECRET, Fault, StandIns
from tests.support import (
    Broken,
    ManualClock,
    ScriptedUpstream,
    answer,
    ask,
    merged,
    raw_client,
    request,
    settle,
    until,
)
from tests.workers.support import Company, found, plain, running, vendors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support import RawClient, UpstreamWire

ECHO = [answer(b"ok")] * 99


@contextlib.asynccontextmanager
async def callers(company: Company, route: str = "plain") -> AsyncIterator[list[RawClient]]:
    """Connect until every worker has a caller; return one for each, by the worker's number."""
    async with contextlib.AsyncExitStack() as stack:
        mine: dict[int, RawClient] = {}
        while len(mine) < len(company.supervisor.members):
            client = await stack.enter_async_context(raw_client(company.url(route)))
            await until(partial(holder, company, client))
            mine.setdefault(holder(company, client), client)
        yield [mine[number] for number in sorted(mine)]


def holder(company: Company, client: RawClient) -> int:
    """Tell which worker a connection came to, 0 if it is not known yet."""
    name = client.writer.get_extra_info("sockname")
    for number in company.supervisor.members:
        for listener in company.now(number).app._listeners.values():
            for caller in listener._callers:
                transport = caller.transport
                if transport is not None and transport.get_extra_info("peername") == name:
                    return number
    return 0


async def scrape(company: Company) -> dict[str, float]:
    """Read all counters, by their name and labels."""
    text = (await ask(company.admin, "GET", "/metrics")).body.decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


async def requests_counted(company: Company, route: str = "plain") -> float:
    counted = await scrape(company)
    marks = ("ekeko_requests_total", f"'{route}'")
    return sum(value for name, value in counted.items() if all(m in name for m in marks))


async def get_status(company: Company) -> dict[str, Any]:
    status: dict[str, Any] = (await ask(company.admin, "GET", "/status.json")).json()
    return status


# All serve.


async def test_all_workers_serve_on_the_same_port_and_it_says_ready_once() -> None:
    async with ScriptedUpstream(ECHO) as upstream, running(plain(upstream.url)) as company:
        await until(lambda: company.said)
        (line,) = company.said
        ready = json.loads(line)
        assert ready["event"] == "ready"
        assert set(ready) == {"event", "listeners", "admin"}
        assert ready["listeners"]["plain"] == company.url("plain")
        async with callers(company) as clients:
            for client in clients:
                assert (await client.ask("GET", "/")).body == b"ok"
        assert all(task.may_write for task in company.tasks)
        assert len(company.log()) == 3
    assert len(company.said) == 1


async def test_workers_share_a_unix_socket_and_its_file_goes_with_the_last(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    change = {"routes": {"plain": {"listen": f"unix:{path}", "socket_mode": "0660"}}}
    async with ScriptedUpstream(ECHO) as upstream:
        async with running(plain(upstream.url, change)) as company:
            assert path.stat().st_mode & 0o777 == 0o660
            for number in range(1, 4):
                assert (await ask(company.url("plain"), "GET", "/")).body == b"ok"
                company.now(number).kill()
                assert path.exists()
        assert not path.exists()


async def test_each_worker_holds_its_share_of_the_connections() -> None:
    async with ScriptedUpstream(ECHO) as upstream:
        limits = {
            "limits": {"connections": 10, "connections_per_caller": 4},
            "routes": {"plain": {"max_in_flight": 7}},
        }
        async with running(plain(upstream.url, limits)) as company:
            assert [app._limits.bounds.connections for app in company.apps] == [4, 4, 4]
            assert [app._limits.bounds.per_caller for app in company.apps] == [2, 2, 2]
            routes = [app._current.routes["plain"] for app in company.apps]
            assert [route.max_in_flight for route in routes] == [3, 3, 3]
            await company.reload({"limits": {"connections": 30}})
            assert [app._limits.bounds.connections for app in company.apps] == [10, 10, 10]


async def test_timestamps_are_unique_across_workers() -> None:
    """The stand-in refuses one that it has seen."""
    async with StandIns() as stand_ins, running(vendors(stand_ins)) as company:
        async with callers(company, "eko") as clients:
            for _ in range(30):
                got = await asyncio.gather(*(each.ask("GET", "/ekoapi/v3/x") for each in clients))
                assert {each.status for each in got} == {200}
        assert stand_ins.eko.refused == {}
        assert stand_ins.eko.calls == 90


# One login.


async def test_workers_log_in_once_for_all() -> None:
    async with StandIns() as stand_ins, running(vendors(stand_ins)) as company:
        await until(lambda: all(not app.troubles() for app in company.apps))
        async with callers(company, "eka") as clients:
            for client in clients:
                assert (await client.ask("GET", "/x")).status == 200
        assert stand_ins.eka.logins == 1
        counted = await scrape(company)
        login = "[('credential', 'eka'), ('grant', 'login'), ('outcome', 'ok')]"
        assert counted[f"ekeko_token_fetches_total{login}"] == 1


async def test_a_token_that_all_workers_see_refused_is_replaced_once() -> None:
    async with (
        StandIns() as stand_ins,
        running(vendors(stand_ins)) as company,
        callers(company, "eka") as clients,
    ):
        for client in clients:
            await client.ask("GET", "/x")
        stand_ins.eka.revoke_all(sessions=True)
        got = await asyncio.gather(*(client.ask("GET", "/x") for client in clients))
        assert {each.status for each in got} == {200}
        assert stand_ins.eka.logins == 2


async def test_a_workspace_is_one_login_as_well() -> None:
    async with (
        StandIns() as stand_ins,
        running(vendors(stand_ins)) as company,
        callers(company, "eka") as clients,
    ):
        await until(lambda: stand_ins.eka.logins == 1)
        for client in clients:
            got = await client.ask("GET", "/x", [("X-Eka-Workspace", "clinic-a")])
            assert got.status == 200
        assert stand_ins.eka.logins == 2


async def test_the_token_is_renewed_ahead_of_its_expiry_once_for_all() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        running(vendors(stand_ins), clock) as company,
    ):
        await until(lambda: all(not app.troubles() for app in company.apps))
        (slot,) = company.supervisor._tools.tokens._all
        for _ in range(20):
            clock.suspend(90)
            await company.supervisor._tick()
            for app in company.apps:
                await app._tick()
            await until(lambda: slot._fetching is None)
            assert (slot.expires_in() or 0) > 90
        assert (stand_ins.eka.logins, stand_ins.eka.refreshes_v2) == (1, 1)


async def test_a_login_that_fails_keeps_all_unready_and_then_all_are_well() -> None:
    async with StandIns() as stand_ins:
        stand_ins.eka.faults.add(Fault("POST /connect-auth", status=500, times=None))
        async with running(vendors(stand_ins)) as company:
            await until(lambda: "500" in str(company.supervisor.current.troubles()))
            got = await ask(company.admin, "GET", "/readyz")
            assert got.status == 503
            assert "status 500" in got.json()["reasons"]["credential eka"]
            stand_ins.eka.faults.clear()
            await until(lambda: not company.supervisor.current.troubles())
            await until(lambda: all(not app.troubles() for app in company.apps))
            assert (await ask(company.admin, "GET", "/readyz")).status == 200
        assert stand_ins.eka.logins == 1


# One page.


async def test_metrics_and_status_are_of_all_workers() -> None:
    async with (
        ScriptedUpstream(ECHO) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        for times, client in enumerate(clients, 1):
            for _ in range(times):
                await client.ask("GET", "/")
        assert await requests_counted(company) == 6
        counted = await scrape(company)
        assert counted["ekeko_request_duration_seconds_count[('route', 'plain')]"] == 6
        status = await get_status(company)
        (route,) = status["routes"]
        assert (route["requests"], route["errors"], route["in_flight"]) == (6, 0, 0)
        assert route["upstream_connections"] == {"active": 0, "idle": 3, "opening": 0}
        pids = [company.now(number).pid for number in (1, 2, 3)]
        assert status["workers"] == [
            {"number": number, "pid": pid, "serves": True, "replaced": 0}
            for number, pid in enumerate(pids, 1)
        ]
        page = (await ask(company.admin, "GET", "/")).body.decode()
        assert "<h2>Workers</h2>" in page


async def test_what_is_in_flight_anywhere_is_told() -> None:
    async with (
        ScriptedUpstream(silent) as upstream,
        running(plain(upstream.url, {"limits": {"drain": 0}})) as company,
        callers(company) as clients,
    ):
        for client in clients[:2]:
            await client.send(request("GET", "/"))
        await until(lambda: len(upstream.requests) == 2)
        text = (await ask(company.admin, "GET", "/metrics")).body.decode()
        assert 'ekeko_requests_in_flight{route="plain"} 2.0' in text
        (route,) = (await get_status(company))["routes"]
        assert route["in_flight"] == 2


async def silent(wire: UpstreamWire) -> None:
    await wire.request()
    await wire.rest()


async def test_the_tokens_expiry_is_told_once() -> None:
    async with StandIns() as stand_ins, running(vendors(stand_ins)) as company:
        await until(lambda: not company.supervisor.current.troubles())
        text = (await ask(company.admin, "GET", "/metrics")).body.decode()
        lines = [x for x in text.splitlines() if x.startswith("ekeko_token_expiry")]
        assert len(lines) == 1
        (eka, eko) = (await get_status(company))["credentials"]
        assert 1600 < eka["token_expires_in"] <= 1800
        assert eko["trouble"] is None


async def test_a_worker_too_busy_to_report_is_told_by_its_last_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.overview._WAIT_AT_MOST", 0.01)
    async with (
        ScriptedUpstream(ECHO) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        for client in clients:
            await client.ask("GET", "/")
        assert await requests_counted(company) == 3
        worker = company.now(2).worker
        with monkeypatch.context() as patch:
            patch.setattr(worker._channel, "answer", lambda *_: None)
            assert await requests_counted(company) == 3
            await clients[0].ask("GET", "/")
            assert await requests_counted(company) == 4
            got = await ask(company.admin, "GET", "/readyz")
            assert got.json()["reasons"] == {"worker 2": "it does not answer"}


async def test_a_report_that_comes_late_takes_nothing_back() -> None:
    async with (
        ScriptedUpstream(ECHO) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        member = company.supervisor.members[1]
        await clients[0].ask("GET", "/")
        await requests_counted(company)
        old = member.report
        await clients[0].ask("GET", "/")
        assert await requests_counted(company) == 2
        member.take_report(old)
        assert company.supervisor._overview._metrics().totals()["plain"]["requests"] == 2


# One configuration.


async def test_another_configuration_is_put_in_force_in_all_workers() -> None:
    async with (
        ScriptedUpstream([answer(b"old")] * 9) as one,
        ScriptedUpstream([answer(b"new")] * 9) as two,
        running(plain(one.url)) as company,
        callers(company) as clients,
    ):
        for client in clients:
            assert (await client.ask("GET", "/")).body == b"old"
        url = company.url("plain")
        more = {"listen": "127.0.0.1:0", "upstream": two.url, "credential": "none"}
        change = {"routes": {"plain": {"upstream": two.url}, "more": more}}
        await company.reload(change, {"log": {"level": "warning"}})
        assert company.url("plain") == url
        await until(lambda: all(task.level == "warning" for task in company.tasks))
        for client in clients:  # which are still connected
            assert (await client.ask("GET", "/")).body == b"new"
        async with callers(company, "more") as others:
            for client in others:
                assert (await client.ask("GET", "/")).body == b"new"


async def test_a_route_that_is_gone_is_gone_in_all_workers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    more = {"listen": f"unix:{path}", "credential": "none"}
    async with ScriptedUpstream(ECHO) as upstream:
        both = {"routes": {"more": more | {"upstream": upstream.url}}}
        async with running(plain(upstream.url, both)) as company:
            old = company.url("plain")
            await company.reload({"routes": {"plain": None}})
            await until(lambda: all(len(app._listeners) == 1 for app in company.apps))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*old.removeprefix("http://").split(":"))
            assert (await ask(company.url("more"), "GET", "/")).body == b"ok"


async def test_a_configuration_that_one_worker_cannot_have_none_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        ScriptedUpstream([answer(b"old")] * 9) as one,
        ScriptedUpstream([answer(b"new")] * 9) as two,
        running(plain(one.url)) as company,
        callers(company) as clients,
    ):

        async def fail(*_: object) -> None:
            raise OSError(24, "too many open files")

        before = company.supervisor.addresses()
        more = {"listen": "127.0.0.1:0", "upstream": two.url, "credential": "none"}
        change = {
            "routes": {"plain": {"upstream": two.url}, "more": more},
            "admin": {"listen": "localhost:0"},
        }
        with monkeypatch.context() as patch:
            patch.setattr(company.now(2).app, "prepare", fail)
            with pytest.raises(
                ChildProcessError, match="worker 2 could not get ready: too many open"
            ):
                await company.reload(change)
        assert company.supervisor.addresses() == before
        await until(lambda: not any(task.worker._sockets for task in company.tasks))
        assert all(task.worker._prepared is None for task in company.tasks)
        for client in clients:
            assert (await client.ask("GET", "/")).body == b"old"
        await company.reload(change)  # and later it may well be had
        for client in clients:
            assert (await client.ask("GET", "/")).body == b"new"


async def test_an_address_that_cannot_be_had_changes_nothing_in_any_worker() -> None:
    async with (
        ScriptedUpstream(ECHO) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        before = company.supervisor.addresses()
        taken = {"listen": f"127.0.0.1:{upstream.port}"}
        more = merged(company.raw["routes"]["plain"], taken)
        for change in ({"routes": {"plain": {"allow": []}, "b": more}}, {"admin": taken}):
            with pytest.raises(OSError, match=r"(routes.b|admin).listen: .* in use"):
                await company.reload(change)
            assert company.supervisor.addresses() == before
            for client in clients:
                assert (await client.ask("GET", "/")).body == b"ok"


async def test_a_worker_that_does_not_answer_keeps_the_old_configuration_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.member._ANSWERS_WITHIN", 0.01)
    async with ScriptedUpstream(ECHO) as upstream, running(plain(upstream.url)) as company:
        slow = asyncio.Event()
        prepare = company.now(3).app.prepare

        async def later(settings: Any) -> Any:
            await slow.wait()
            return await prepare(settings)

        monkeypatch.setattr(company.now(3).app, "prepare", later)
        with pytest.raises(ChildProcessError, match=r"worker \d does not answer"):
            await company.reload({"routes": {"plain": {"allow": []}}})
        slow.set()
        await until(lambda: company.now(3).worker._prepared is None)
        for _ in range(10):
            assert (await ask(company.url("plain"), "GET", "/")).body == b"ok"


async def test_a_worker_that_ends_during_a_reload_is_followed_by_one_with_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.crew._BACK_OFF", (0.0, 0.0))
    async with (
        ScriptedUpstream([answer(b"old")] * 9) as one,
        ScriptedUpstream([answer(b"new")] * 99) as two,
        running(plain(one.url)) as company,
    ):
        victim, other = company.now(2), company.now(3)
        prepare = other.app.prepare

        async def die(*_: object) -> None:
            victim.kill()
            await asyncio.Event().wait()

        async def wait_for_the_next_one(settings: Any) -> Any:
            await until(lambda: len(company.tasks) == 4)
            await settle(100)
            return await prepare(settings)

        monkeypatch.setattr(victim.app, "prepare", die)
        monkeypatch.setattr(other.app, "prepare", wait_for_the_next_one)
        await company.reload({"routes": {"plain": {"upstream": two.url}}})
        await until(lambda: all_serve(company))
        async with callers(company) as clients:
            for client in clients:
                assert (await client.ask("GET", "/")).body == b"new"


def all_serve(company: Company) -> bool:
    members = company.supervisor.members
    return len(members) == 3 and all(each.serves for each in members.values())


async def test_a_secret_that_changes_in_its_file_changes_in_all(tmp_path: Path) -> None:
    """In the one that logs in, and in those that sign."""
    client_secret, access_key = tmp_path / "client_secret", tmp_path / "access_key"
    await asyncio.to_thread(client_secret.write_text, "canary-old")
    await asyncio.to_thread(access_key.write_text, "canary-old")
    async with StandIns() as stand_ins:
        raw = vendors(stand_ins)
        right = raw["credentials"]["eko"]["access_key"]
        change = {
            "eka": {"client_secret": {"file": str(client_secret)}},
            "eko": {"access_key": {"file": str(access_key)}},
        }
        async with (
            running(merged(raw, {"credentials": change})) as company,
            callers(company, "eko") as eko,
            callers(company, "eka") as eka,
        ):
            for client in eko:
                assert (await client.ask("GET", "/ekoapi/v3/x")).status != 200
            for client in eka:
                got = await client.ask("GET", "/x")
                assert got.get("X-Ekeko-Error") == "credential_rejected"
            failures = stand_ins.eka.login_failures
            assert failures == 1
            await asyncio.to_thread(client_secret.write_text, SANDBOX_CLIENT_SECRET)
            await asyncio.to_thread(access_key.write_text, right)
            await company.supervisor._look_at_secrets()
            for client in eko:
                assert (await client.ask("GET", "/ekoapi/v3/x")).status == 200
            for client in eka:
                assert (await client.ask("GET", "/x")).status == 200
            assert (stand_ins.eka.logins, stand_ins.eka.login_failures) == (1, failures)
            company.now(1).kill()  # who follows has the new ones, too
            await until(lambda: 1 not in company.supervisor.members)
            await until(lambda: all_serve(company))
            async with callers(company, "eko") as clients:
                assert (await clients[0].ask("GET", "/ekoapi/v3/x")).status == 200


async def test_what_the_configuration_before_began_still_gets_a_token() -> None:
    async with StandIns() as stand_ins, running(vendors(stand_ins)) as company:
        eka = company.apps[0]._current.credentials["eka"]
        assert isinstance(eka, EkaTokens)
        (key,) = {login.key for workspace, login in eka._logins.items() if workspace == b"clinic-a"}
        question = {"key": key, "refused": None}
        await company.reload({"routes": {"eka": None}, "credentials": {"eka": None}})
        got = await company.supervisor._lend(question)
        assert "value" in got
        await company.reload({"log": {"level": "error"}})
        got = await company.supervisor._lend(question)
        assert got["failure"] == "The configuration has changed."


# None missing.


async def test_a_worker_that_ends_is_replaced_and_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        ScriptedUpstream(ECHO) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        for client in clients:
            await client.ask("GET", "/")
        assert await requests_counted(company) == 3
        victim = company.now(2)
        victim.kill()
        assert await clients[1].rest() == b""
        await until(lambda: 2 not in company.supervisor.members)
        got = await ask(company.admin, "GET", "/readyz")
        assert got.status == 503
        assert got.json()["reasons"] == {"worker 2": "it is not serving yet"}
        assert await requests_counted(company) == 3
        for client in (clients[0], clients[2]):
            assert (await client.ask("GET", "/")).body == b"ok"
        await until(lambda: all_serve(company))
        assert (await ask(company.admin, "GET", "/readyz")).status == 200
        assert await requests_counted(company) == 5
        async with callers(company) as again:
            for client in again:
                assert (await client.ask("GET", "/")).body == b"ok"
        assert await requests_counted(company) == 8
        assert [each["replaced"] for each in (await get_status(company))["workers"]] == [0, 1, 0]
        assert f"worker 2 ended with status -9 (process {victim.pid})" in caplog.text
        assert len(company.said) == 1  # ready is said once


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"report"])
async def test_a_worker_that_talks_nonsense_is_replaced(
    monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    monkeypatch.setattr("proxy.workers.crew._BACK_OFF", (0.0, 0.0))
    async with ScriptedUpstream(ECHO) as upstream, running(plain(upstream.url)) as company:
        channel = company.now(2).worker._channel
        if nonsense == b"report":
            channel.send("report", {"figures": "none"})
        else:
            channel._sock.send(nonsense)
        await until(lambda: len(company.tasks) == 4)
        await until(lambda: all_serve(company))
        assert (await ask(company.admin, "GET", "/readyz")).status == 200


async def test_counters_never_go_back_however_often_workers_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.crew._BACK_OFF", (0.01, 0.01))
    async with (
        ScriptedUpstream([answer(b"ok")] * 999) as upstream,
        running(plain(upstream.url)) as company,
    ):
        before: dict[str, float] = {}
        for round_ in range(6):
            for _ in range(5):
                with contextlib.suppress(Broken, ConnectionError):
                    await ask(company.url("plain"), "GET", "/")
            await scrape(company)
            company.now(round_ % 3 + 1).kill()
            for _ in range(3):
                now = await scrape(company)
                assert all(now[name] >= value for name, value in before.items())
                before = now
            await until(lambda: all_serve(company))
        assert before


async def test_a_successor_keeps_its_share_of_the_milliseconds_and_repeats_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.crew._BACK_OFF", (0.01, 0.01))
    async with StandIns() as stand_ins, running(vendors(stand_ins)) as company:
        taken: list[int] = []
        for _ in range(3):
            stamps = company.now(2).app._tools.stamps.of("key")
            taken += [await stamps.next() for _ in range(1000)]  # seconds ahead
            company.now(2).kill()
            await until(lambda: 2 not in company.supervisor.members)
            await until(lambda: all_serve(company))
        assert {stamp % 3 for stamp in taken} == {1}
        assert taken == sorted(set(taken))


async def test_a_worker_that_keeps_ending_is_started_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    async with ScriptedUpstream([]) as upstream, running(plain(upstream.url), clock) as company:
        company.refuses = True
        company.now(1).kill()
        for wait in ("0.5", "1.0", "2.0", "4.0", "8.0", "16.0", "30.0"):
            await until(lambda: "the next one starts" in caplog.text)
            assert f"starts in {wait} s" in caplog.text
            caplog.clear()
            await settle()  # now it sleeps
            await clock.advance(float(wait))
        await until(lambda: "could not be started: no more processes" in caplog.text)
        assert sorted(company.supervisor.members) == [2, 3]
        company.refuses = False
        await settle()
        await clock.advance(30)
        await until(lambda: all_serve(company))


async def test_a_worker_that_cannot_start_fails_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = App.start

    async def fail(self: App) -> None:
        share = self._post.stamps._share if self._post else None
        if share is not None and share._index == 1:
            raise OSError(24, "too many open files")
        await start(self)

    monkeypatch.setattr(App, "start", fail)
    async with ScriptedUpstream([]) as upstream:
        company = await found(plain(upstream.url))
        with pytest.raises(ChildProcessError, match="worker 2 could not start: too many open"):
            await company.supervisor.start()
        assert company.supervisor.members == {}
        assert company.said == []


async def test_no_process_to_be_had_fails_the_start() -> None:
    async with ScriptedUpstream([]) as upstream:
        company = await found(plain(upstream.url))
        company.refuses = True
        with pytest.raises(ChildProcessError, match="could not be started: no more processes"):
            await company.supervisor.start()


async def test_an_address_in_use_fails_the_start_before_any_worker() -> None:
    async with ScriptedUpstream([]) as upstream, running(plain(upstream.url)) as company:
        taken = company.url("plain").removeprefix("http://")
        raw = merged(company.raw, {"routes": {"plain": {"listen": taken}}})
        other = await found(raw)
        with pytest.raises(OSError, match=f"routes.plain.listen: cannot listen on {taken}"):
            await other.supervisor.start()
        assert other.tasks == []


# The end.


async def test_what_is_in_flight_in_any_worker_is_finished() -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"in the end"))
        await wire.rest()

    async with ScriptedUpstream(play) as upstream:
        company = await found(plain(upstream.url))
        await company.supervisor.start()
        url = company.url("plain")
        async with callers(company) as clients, raw_client(company.admin) as ops:
            for client in clients[:2]:
                await client.send(request("GET", "/"))
            await until(lambda: len(upstream.requests) == 2)
            ending = asyncio.create_task(company.supervisor.run())
            company.supervisor.stop()
            assert await clients[2].rest() == b""
            await until(lambda: len(company.supervisor.members) == 2)
            got = await ops.ask("GET", "/readyz")
            assert got.json()["reasons"] == {"proxy": "it is draining"}
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*url.removeprefix("http://").split(":"))
            assert not ending.done()
            may_answer.set()
            for client in clients[:2]:
                assert (await client.answer()).body == b"in the end"
            await ending
    assert len(company.log()) == 2


async def test_a_post_to_quit_ends_all() -> None:
    async with ScriptedUpstream([]) as upstream:
        company = await found(plain(upstream.url))
        await company.supervisor.start()
        ending = asyncio.create_task(company.supervisor.run())
        assert (await ask(company.admin, "POST", "/quit")).status == 202
        await ending
        assert [await task.wait() for task in company.tasks] == [0, 0, 0]


async def test_a_worker_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("proxy.workers.crew._GRACE", 0.1)
    async with ScriptedUpstream([]) as upstream:
        company = await found(plain(upstream.url, {"limits": {"drain": 0}}))
        await company.supervisor.start()

        async def never() -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(company.now(2).app, "_drain", never)
        company.supervisor.stop()
        await company.supervisor.run()
        assert [await task.wait() for task in company.tasks] == [0, -9, 0]
        assert "worker 2 did not end in time" in caplog.text


async def test_a_stop_while_workers_start_ends_them() -> None:
    async with ScriptedUpstream([]) as upstream:
        company = await found(plain(upstream.url))
        starting = asyncio.create_task(company.supervisor.start())
        await until(lambda: company.supervisor.members)
        company.supervisor.stop()
        await starting
        await company.supervisor.run()
        assert company.said == []
        assert company.supervisor.members == {}
        for task in company.tasks:
            await task.wait()


async def test_a_worker_whose_supervisor_is_gone_finishes_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.workers.crew._BACK_OFF", (0.0, 0.0))
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"in the end"))

    async with (
        ScriptedUpstream(play) as upstream,
        running(plain(upstream.url)) as company,
        callers(company) as clients,
    ):
        await clients[0].send(request("GET", "/"))
        await until(lambda: upstream.requests)
        orphan = company.now(1)
        orphan._channel.close()
        await until(orphan.app._stopping.is_set)
        assert not orphan._status.done()
        await settle(100)
        assert company.tasks[-1].number == 3  # nobody has its share before it has ended
        may_answer.set()
        assert (await clients[0].answer()).body == b"in the end"
        assert await orphan.wait() == 0
        await until(lambda: all_serve(company))
        assert company.tasks[-1].number == 1
