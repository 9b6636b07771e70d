"""`ekeko` as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[1]


class Process:
    """An `ekeko` that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> dict[str, Any]:
        """Read the next line of JSON from stdout."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return line

    async def said(self, text: str) -> str:
        """Read stderr up to the line that holds a text."""
        assert self.process.stderr is not None
        lines = ""
        async with asyncio.timeout(PATIENCE):
            while text not in lines:
                line = await self.process.stderr.readline()
                assert line, f"it never said {text!r}: {lines}"
                lines += line.decode()
        return lines

    async def ended(self) -> tuple[int, str, str]:
        """Wait for the end: exit status, the rest of stdout (if it is ours) and stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, (out or b"").decode(), err.decode()


@contextlib.asynccontextmanager
async def ekeko(
    *args: str, stdout: IO[bytes] | int = asyncio.subprocess.PIPE, **environ: str
) -> AsyncIterator[Process]:
    """Run the command, with these variables besides those that there are."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *args),
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"} | environ,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def configure(file: Path, upstream: str, **changes: Any) -> None:
    """Write a configuration with one route, `plain`, and free ports."""
    raw: dict[str, Any] = {
        "routes": {"plain": {"listen": "127.0.0.1:0", "upstream": upstream, "credential": "none"}},
        "admin": {"listen": "127.0.0.1:0"},
    }
    file.write_text(json.dumps(raw | changes))  # JSON is YAML
