"""Runs a vendor's own client library, which blocks, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockbuster import blockbuster_ctx

from proxy.sandbox import Arrived, StandIns
from tests.support import proxy_in_front

if TYPE_CHECKING:
    from collections.abc import Iterable

_HERE = Path(__file__).parent
_PATIENCE = 60  # seconds for a whole session


@dataclass(frozen=True)
class Session:
    """What a client got, and what the stand-ins and the access log say about it."""

    got: dict[str, Any]
    stand_ins: StandIns
    log: list[dict[str, Any]] = field(default_factory=list)


def run_session(vendor: str, files: Iterable[Path]) -> Session:
    """Run a client's session against a proxy in front of stand-ins, both in this process."""
    with blockbuster_ctx("proxy"):
        return asyncio.run(_session(vendor, files))


async def _session(vendor: str, files: Iterable[Path]) -> Session:
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as running:
        stand_in_url = {"eka": stand_ins.eka_url, "eko": stand_ins.eko_url}[vendor]
        got = await run_client(vendor, running.url(vendor), stand_in_url, files)
        return Session(got, stand_ins, running.lines())


async def run_client(
    vendor: str, proxy: str, stand_in_url: str, files: Iterable[Path]
) -> dict[str, Any]:
    """Run `VENDOR_client.py` and return what it printed; its traceback fails the test."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(_HERE / f"{vendor}_client.py"),
        proxy,
        stand_in_url,
        *map(str, files),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_proxies(),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    got: dict[str, Any] = json.loads(out)
    return got


def without_proxies() -> dict[str, str]:
    """Return the environment without an outbound HTTP proxy: clients are to call ours directly."""
    return {name: value for name, value in os.environ.items() if "_proxy" not in name.lower()}


def values(arrived: Arrived, name: str) -> list[str]:
    """Return every value of a header; `name` in lower case."""
    return [value.decode() for key, value in arrived.headers if key.decode().lower() == name]
