"""`ekeko run` with several workers, as the processes that it really is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import StandIns
from proxy.workers.hire import hire
from tests.processes import configure, ekeko
from tests.support import (
    Broken,
    ScriptedUpstream,
    answer,
    ask,
    raw_client,
    request,
    until,
)
from tests.workers.support import vendors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Process
    from tests.support import UpstreamWire

MANY = [answer(b"ok")] * 9999


@contextlib.asynccontextmanager
async def serving(
    file: Path, upstream: str, **changes: Any
) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """Run two workers with one route; yield the process and its `ready` line."""
    await asyncio.to_thread(configure, file, upstream, **{"workers": 2, **changes})
    async with ekeko("run", "-c", str(file)) as process:
        yield process, await process.line()


async def workers(ready: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(ready["admin"], "GET", "/status.json")).json()[
        "workers"
    ]
    return found


async def pids(ready: dict[str, Any]) -> list[int]:
    return [each["pid"] for each in await workers(ready)]


async def replaced(ready: dict[str, Any], times: int) -> None:
    """Wait until workers have been replaced so often, and all serve."""
    while True:
        found = await workers(ready)
        if sum(each["replaced"] for each in found) == times and all(w["serves"] for w in found):
            return


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended (and may wait to be collected)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


async def count(ready: dict[str, Any]) -> float:
    text = (await ask(ready["admin"], "GET", "/metrics")).body.decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("ekeko_requests_total")
    )


async def test_it_says_ready_once_and_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with ScriptedUpstream(MANY) as upstream:
        route = {"upstream": upstream.url, "credential": "none"}
        routes = {
            "tcp": route | {"listen": "127.0.0.1:0"},
            "unix": route | {"listen": f"unix:{path}"},
        }
        async with serving(tmp_path / "c.yaml", "", routes=routes) as (process, ready):
            assert ready["event"] == "ready"
            for url in [*ready["listeners"].values()] * 10:
                assert (await ask(url, "GET", "/")).body == b"ok"
            started = await pids(ready)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(started[0], number)  # as a service manager would, to all of them
            assert await count(ready) == 20
            process.process.send_signal(signal.SIGTERM)
            status, out, err = await process.ended()
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 20
    assert all("event" not in line for line in lines)
    assert all(map(is_gone, started))
    assert not path.exists()


async def test_what_is_in_flight_at_sigterm_is_finished_in_each_worker(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"in the end"))

    async with (
        ScriptedUpstream(play) as upstream,
        serving(tmp_path / "c.yaml", upstream.url) as (process, ready),
        contextlib.AsyncExitStack() as stack,
    ):
        url = ready["listeners"]["plain"]
        clients = [await stack.enter_async_context(raw_client(url)) for _ in range(12)]
        for client in clients:
            await client.send(request("GET", "/"))
        await until(lambda: len(upstream.requests) == 12)
        process.process.send_signal(signal.SIGTERM)
        while (await ask(ready["admin"], "GET", "/readyz")).status != 503:
            pass
        may_answer.set()
        for client in clients:
            assert (await client.answer()).body == b"in the end"
        assert (await process.ended())[0] == 0


async def test_a_worker_killed_under_load_is_replaced_and_nothing_counts_back(
    tmp_path: Path,
) -> None:
    """Those connected to it lose their connections, and nobody else does."""
    async with (
        ScriptedUpstream(MANY) as upstream,
        serving(tmp_path / "c.yaml", upstream.url) as (process, ready),
    ):
        url, stop = ready["listeners"]["plain"], asyncio.Event()

        async def call() -> bool:
            """Call over one connection until told to stop; True if it held."""
            async with raw_client(url) as client:
                while not stop.is_set():
                    try:
                        assert (await client.ask("GET", "/")).body == b"ok"
                    except (Broken, ConnectionError):
                        return False
            return True

        calls = [asyncio.create_task(call()) for _ in range(16)]
        counted = [await count(ready) for _ in range(3)]
        victim, other = await pids(ready)
        os.kill(victim, signal.SIGKILL)
        await process.said(f"worker 1 ended with status -9 (process {victim})")
        counted += [await count(ready) for _ in range(5)]
        await replaced(ready, 1)
        counted += [await count(ready) for _ in range(5)]
        stop.set()
        held = await asyncio.gather(*calls)
        assert counted == sorted(counted)
        assert any(held)
        assert not all(held)
        now = await pids(ready)
        assert now[0] != victim
        assert now[1] == other
        assert is_gone(victim)


async def test_workers_end_by_themselves_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream(MANY) as upstream,
        serving(tmp_path / "c.yaml", upstream.url) as (process, ready),
    ):
        orphans = await pids(ready)
        process.process.kill()
        for pid in orphans:
            await until(partial(is_gone, pid))


async def test_a_worker_that_never_hears_of_its_supervisor_ends() -> None:
    ours, theirs = socket.socketpair()
    process = await hire(1, theirs)
    theirs.close()
    assert not is_gone(process.pid)
    ours.close()
    assert await process.wait() == 1
    process.kill()  # which is no error


async def test_a_reload_is_for_all_and_a_bad_one_for_none(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    async with (
        ScriptedUpstream([answer(b"old")] * 99) as one,
        ScriptedUpstream([answer(b"new")] * 99) as two,
        serving(file, one.url) as (process, ready),
    ):
        url = ready["listeners"]["plain"]

        async def bodies() -> set[bytes]:
            return {(await ask(url, "GET", "/")).body for _ in range(12)}

        await asyncio.to_thread(file.write_text, "routes: {}\nbogus: 1\n")
        process.process.send_signal(signal.SIGHUP)
        assert "the configuration stays as it was" in await process.said("bogus")
        await asyncio.to_thread(configure, file, two.url, workers=3)
        process.process.send_signal(signal.SIGHUP)
        said = await process.said("workers:")
        assert "cannot change while ekeko runs: expected 2 as before, or a restart" in said
        assert await bodies() == {b"old"}
        await asyncio.to_thread(configure, file, two.url, workers=2, log={"level": "debug"})
        process.process.send_signal(signal.SIGHUP)
        await process.said("the configuration was read again")
        assert await bodies() == {b"new"}
        process.process.send_signal(signal.SIGTERM)
        _, _, err = await process.ended()
        for number in (1, 2):
            assert f" DEBUG worker {number}: proxy.app: draining" in err


async def test_one_process_does_not_become_several_by_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    async with serving(file, "http://127.0.0.1:9", workers=1) as (process, _):
        await asyncio.to_thread(configure, file, "http://127.0.0.1:9", workers=2)
        process.process.send_signal(signal.SIGHUP)
        assert "expected 1 as before, or a restart" in await process.said("workers:")


async def test_an_address_that_another_ekekos_workers_have_is_in_use(tmp_path: Path) -> None:
    async with serving(tmp_path / "c.yaml", "http://127.0.0.1:9") as (_, ready):
        taken = {
            "listen": ready["listeners"]["plain"].removeprefix("http://"),
            "upstream": "http://127.0.0.1:9",
            "credential": "none",
        }
        file = tmp_path / "other.yaml"
        await asyncio.to_thread(configure, file, "", routes={"plain": taken}, workers=2)
        async with ekeko("run", "-c", str(file)) as process:
            status, out, err = await process.ended()
    assert (status, out) == (1, "")
    assert err.startswith(f"routes.plain.listen: cannot listen on {taken['listen']}: ")
    assert "Traceback" not in err


async def test_both_vendors_are_well_served_through_the_death_of_workers(tmp_path: Path) -> None:
    """One login, whatever is refused; no timestamp twice; no secret where it could be seen."""
    async with StandIns() as stand_ins:
        raw = vendors(stand_ins, workers=3)
        file = tmp_path / "c.yaml"
        await asyncio.to_thread(file.write_text, json.dumps(raw))
        async with ekeko("run", "-c", str(file)) as process:
            ready = await process.line()
            eka, eko = ready["listeners"]["eka"], ready["listeners"]["eko"]
            seen = [await asyncio.to_thread(everything_seen, pid) for pid in await pids(ready)]
            for victim in range(3):
                await calls(eka, "/x", 12)
                await calls(eko, "/ekoapi/v3/x", 60)
                stand_ins.eka.revoke_all(sessions=True)
                await calls(eka, "/x", 12)
                os.kill((await pids(ready))[victim], signal.SIGKILL)
                await replaced(ready, victim + 1)
            await calls(eko, "/ekoapi/v3/x", 60)
            process.process.send_signal(signal.SIGTERM)
            status, out, err = await process.ended()
        assert status == 0
        assert stand_ins.eka.logins == 1 + 3
        assert stand_ins.eko.refused == {}
        tokens = stand_ins.eka.tokens
        secrets = [*tokens._by_access, *tokens._by_refresh, *secrets_of(raw)]
        assert len(secrets) > 8
        for secret in secrets:
            assert secret not in out + err
            assert not any(secret in text for text in seen)


async def calls(url: str, target: str, times: int) -> None:
    """Make calls at once, which all have to be answered well."""
    got = await asyncio.gather(*(ask(url, "GET", target) for _ in range(times)))
    assert {each.status for each in got} == {200}


def secrets_of(raw: dict[str, Any]) -> list[str]:
    eka, eko = raw["credentials"]["eka"], raw["credentials"]["eko"]
    return [eka["client_id"], eka["client_secret"], eko["developer_key"], eko["access_key"]]


def everything_seen(pid: int) -> str:
    """Read what any program of this user can see of a process."""
    of = Path(f"/proc/{pid}")
    return "".join((of / name).read_bytes().decode() for name in ("cmdline", "environ"))


@pytest.mark.parametrize("kind", ["pipe", "file"])
async def test_lines_of_the_access_log_stay_whole(tmp_path: Path, kind: str) -> None:
    """Also in a file that was not opened to append to."""
    log = tmp_path / "log"
    async with ScriptedUpstream(MANY) as upstream:
        file = tmp_path / "c.yaml"
        await asyncio.to_thread(configure, file, upstream.url, workers=3)
        with log.open("wb") as opened:
            stdout = opened if kind == "file" else asyncio.subprocess.PIPE
            async with ekeko("run", "-c", str(file), stdout=stdout) as process:
                if kind == "file":
                    await until(lambda: log.read_bytes().endswith(b"\n"))
                    ready = json.loads(await asyncio.to_thread(log.read_text))
                else:
                    ready = await process.line()
                url = ready["listeners"]["plain"]
                await asyncio.gather(*(call_often(url, 100) for _ in range(24)))
                process.process.send_signal(signal.SIGTERM)
                _, out, _ = await process.ended()
    text = out if kind == "pipe" else await asyncio.to_thread(log.read_text)
    lines = [line for line in map(json.loads, text.splitlines()) if "event" not in line]
    assert len(lines) == 2400
    assert {line["request_id"] for line in lines} == {"i" * 128}


async def call_often(url: str, times: int) -> None:
    async with raw_client(url) as client:
        for _ in range(times):
            got = await client.ask("GET", "/x", [("X-Request-Id", "i" * 128)])
            assert got.body == b"ok"
