"""`ekeko sandbox`: everything in one command, and what it prints works when it is pasted."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
END = "Ctrl-C stops everything."


class Sandbox:
    """A sandbox that runs, and the guide that it printed."""

    def __init__(self, process: asyncio.subprocess.Process, guide: str) -> None:
        self.process = process
        self.guide = guide

    def address(self, pattern: str) -> str:
        found = re.search(pattern, self.guide)
        assert found, self.guide
        return found[1]

    @property
    def eka(self) -> str:
        return self.address(r"(http://\S+?)/dr/v1/patient")

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def sandbox(*args: str, until: str = END) -> AsyncIterator[Sandbox]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "sandbox", *args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    guide = ""
    try:
        async with asyncio.timeout(PATIENCE):
            while until not in guide:
                line = await process.stderr.readline()
                assert line, f"it ended early: {guide}"
                guide += line.decode()
        yield Sandbox(process, guide)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def commands(guide: str) -> list[str]:
    """The lines to paste: those that begin with curl, with what they are continued by."""
    joined = guide.replace("\\\n", " ")
    lines = re.findall(r"^curl .*(?:\n  .*)*", joined, re.MULTILINE)
    return [line.replace("\n", " ") for line in lines]


async def pasted(line: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_every_line_that_it_prints_works_when_pasted() -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed")
    async with sandbox() as running:
        lines = commands(running.guide)
        assert len(lines) >= 6
        for line in lines:
            status, out = await pasted(line)
            assert status == 0, (line, out)
            assert out, line
            assert "error" not in out.lower().replace("proxy_errors", ""), (line, out)
        assert await running.stop(signal.SIGINT) == 0


async def test_it_needs_no_configuration_and_sigint_ends_it_in_order() -> None:
    async with sandbox() as running:
        got = await ask(running.eka, "GET", "/dr/v1/patient/42")
        assert got.json()["patient_id"] == "42"
        admin = running.address(r"(http://\S+?)/readyz")
        assert (await ask(admin, "GET", "/readyz")).status == 200
        assert await running.stop(signal.SIGINT) == 0


async def test_two_sandboxes_run_side_by_side() -> None:
    async with sandbox() as one, sandbox() as two:
        assert one.eka != two.eka
        for running in (one, two):
            assert (await ask(running.eka, "GET", "/dr/v1/patient/42")).status == 200
        assert await one.stop(signal.SIGTERM) == 0
        assert (await ask(two.eka, "GET", "/dr/v1/patient/42")).status == 200
        assert await two.stop(signal.SIGTERM) == 0


async def test_the_stand_ins_may_run_alone() -> None:
    async with sandbox("--upstreams-only", until="_sandbox/state") as running:
        eka = running.address(r"Eka (http://[^,]+),")
        state = await ask(eka, "GET", "/_sandbox/state")
        assert (state.status, state.json()["sandbox"]) == (200, "eka")
        assert (await ask(eka, "GET", "/dr/v1/patient/42")).status == 401
        assert await running.stop(signal.SIGINT) == 0
