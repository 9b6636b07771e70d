"""`ekeko run` as a process: it says when it is ready, obeys signals, and tells what is wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from proxy.sandbox import StandIns
from tests.processes import configure, ekeko
from tests.support import ScriptedUpstream, answer, ask, raw_client, request, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import UpstreamWire


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_when_it_is_ready_and_a_signal_ends_it_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedUpstream([answer(b"ok")]) as upstream:
        await asyncio.to_thread(configure, file, upstream.url)
        async with ekeko("run", "-c", str(file)) as process:
            ready = await process.line()
            assert ready["event"] == "ready"
            assert set(ready) == {"event", "listeners", "admin"}
            assert (await ask(ready["listeners"]["plain"], "GET", "/x")).body == b"ok"
            assert (await ask(ready["admin"], "GET", "/readyz")).status == 200
            process.process.send_signal(number)
            status, out, err = await process.ended()
    assert (status, err) == (0, "")
    (line,) = map(json.loads, out.splitlines())
    assert (line["route"], line["status"]) == ("plain", 200)


async def test_what_is_in_flight_at_sigterm_is_finished(tmp_path: Path) -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"in the end"))

    file = tmp_path / "config.yaml"
    async with ScriptedUpstream(play) as upstream:
        await asyncio.to_thread(configure, file, upstream.url)
        async with ekeko("run", "-c", str(file)) as process:
            ready = await process.line()
            async with (
                raw_client(ready["listeners"]["plain"]) as client,
                raw_client(ready["listeners"]["plain"]) as idle,
            ):
                await client.send(request("GET", "/"))
                await until(lambda: upstream.requests)
                process.process.send_signal(signal.SIGTERM)
                assert await idle.rest() == b""  # it drains now
                assert process.process.returncode is None
                may_answer.set()
                assert (await client.answer()).body == b"in the end"
            assert (await process.ended())[0] == 0


async def test_a_post_to_quit_ends_it_in_order(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    await asyncio.to_thread(configure, file, "http://127.0.0.1:9")
    async with ekeko("run", "-c", str(file)) as process:
        ready = await process.line()
        assert (await ask(ready["admin"], "POST", "/quit")).status == 202
        assert (await process.ended())[0] == 0


async def test_sighup_reads_the_configuration_again_and_a_bad_one_changes_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.yaml"
    async with (
        ScriptedUpstream([answer(b"old")] * 5) as one,
        ScriptedUpstream([answer(b"new")] * 5) as two,
    ):
        await asyncio.to_thread(configure, file, one.url)
        async with ekeko("run", "-c", str(file)) as process:
            url = (await process.line())["listeners"]["plain"]
            assert (await ask(url, "GET", "/")).body == b"old"
            await asyncio.to_thread(file.write_text, "routes: {}\nbogus: 1\n")
            process.process.send_signal(signal.SIGHUP)
            said = await process.said("bogus")
            assert "the configuration stays as it was" in said
            assert (await ask(url, "GET", "/")).body == b"old"
            await asyncio.to_thread(configure, file, two.url)
            process.process.send_signal(signal.SIGHUP)
            await process.said("the configuration was read again")
            assert (await ask(url, "GET", "/")).body == b"new"
            process.process.send_signal(signal.SIGTERM)
            assert (await process.ended())[0] == 0


async def test_a_bad_configuration_is_status_2(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    await asyncio.to_thread(file.write_text, "routes: {}\nbogus: 1\n")
    async with ekeko("run", "-c", str(file)) as process:
        status, out, err = await process.ended()
    assert (status, out) == (2, "")
    assert f"{file}:2:1: bogus" in err
    assert "Traceback" not in err


async def test_a_secret_that_is_not_there_is_status_2(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    missing = {"static": {"kind": "bearer", "token": {"env": "EKEKO_TEST_NO_SUCH_NAME"}}}
    await asyncio.to_thread(configure, file, "http://127.0.0.1:9", credentials=missing)
    async with ekeko("run", "-c", str(file)) as process:
        status, out, err = await process.ended()
    assert (status, out) == (2, "")
    assert "EKEKO_TEST_NO_SUCH_NAME is not set" in err


async def test_an_address_in_use_is_status_1_and_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedUpstream([]) as upstream:
        taken = {"listen": f"127.0.0.1:{upstream.port}"}
        await asyncio.to_thread(configure, file, upstream.url, admin=taken)
        async with ekeko("run", "-c", str(file)) as process:
            status, out, err = await process.ended()
        assert (status, out) == (1, "")
        assert err.startswith(f"admin.listen: cannot listen on 127.0.0.1:{upstream.port}: ")
        assert "Traceback" not in err


async def test_it_runs_a_vendors_credential_from_a_file(tmp_path: Path) -> None:
    """The whole of it, as a user has it: a secret in a file, a token, a call."""
    file, secret = tmp_path / "config.yaml", tmp_path / "secret"
    await asyncio.to_thread(secret.write_text, "sandbox-client-secret\n")
    async with StandIns() as stand_ins:
        eka = {"listen": "127.0.0.1:0", "upstream": stand_ins.eka_url, "credential": "eka"}
        credential = {
            "kind": "eka",
            "client_id": "sandbox-client-id",
            "client_secret": {"file": str(secret)},
            "login_url": stand_ins.eka_url,
            "origins": [stand_ins.eka_url],
        }
        await asyncio.to_thread(
            configure, file, "", routes={"eka": eka}, credentials={"eka": credential}
        )
        async with ekeko("run", "-c", str(file)) as process:
            ready = await process.line()
            got = await ask(ready["listeners"]["eka"], "GET", "/dr/v1/patient/42")
            assert got.json()["patient_id"] == "42"
            process.process.send_signal(signal.SIGTERM)
            status, out, err = await process.ended()
    assert (status, err) == (0, "")
    assert "sandbox-client-secret" not in out
    assert json.loads(out)["path"] == "/dr/v1/patient/{patient_id}"
