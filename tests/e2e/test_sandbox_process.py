"""`ekeko sandbox` as people start it, with both vendors' own clients against it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.e2e.vendor_client import run_client, without_proxies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ROOT = Path(__file__).parents[2]
_PATIENCE = 30  # seconds


@asynccontextmanager
async def sandbox() -> AsyncIterator[tuple[dict[str, Any], dict[str, str]]]:
    """Run the command; yields its ready line and the stand-ins' URLs, and sees that it exits 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "proxy", "sandbox"),
        cwd=_ROOT,
        env=without_proxies(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), _PATIENCE))
        guide = await asyncio.wait_for(process.stderr.readuntil(b"Ctrl-C"), _PATIENCE)
        last = guide.decode().rpartition("Stand-ins: ")[2]
        yield ready, dict(re.findall(r"(\w+) (http://[\d.:]+)", last))
        process.terminate()
        await asyncio.wait_for(process.communicate(), _PATIENCE)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_both_clients_work_against_the_command(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for file in files:
        file.write_bytes(file.name.encode() * 1000)
    async with sandbox() as (ready, stand_ins), aiohttp.ClientSession() as http:
        assert ready["event"] == "ready"
        listeners = ready["listeners"]
        eka = await run_client("eka", listeners["eka"], stand_ins["Eka"], files[:1])
        eko = await run_client("eko", listeners["eko"], stand_ins["Eko"], files)
        states = {}
        for name, url in stand_ins.items():
            async with http.get(f"{url}/_sandbox/state") as answer:
                states[name] = await answer.json()
    assert eka["patient_after_revocation"]["patient_id"] == "p-1"
    assert states["Eka"]["logins"] == 2  # the second after the revocation
    assert states["storage"]["leaks"] == 0
    assert eko["lost"]["problem"]["code"] == "outcome_unknown"
    assert (states["Eko"]["payments"], states["Eko"]["duplicate_payments"]) == (2, 0)
    assert states["Eko"]["refused"] == {}
