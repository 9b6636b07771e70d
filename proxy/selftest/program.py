"""The program under attack, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Self

from proxy.selftest.case import NotTriedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Without the working directory on its import path: what runs is what this very program is.
COMMAND = (sys.executable, "-P", "-m", "proxy")
_PATIENCE = 20.0  # seconds


class Program:
    """`ekeko run` with a configuration; `output` is all that it has written so far."""

    def __init__(self, command: Sequence[str], folder: Path, environ: dict[str, str]) -> None:
        self._command = command
        self._folder = folder
        inherited = {key: value for key, value in os.environ.items() if key != "EKEKO_CONFIG"}
        self._environ = inherited | {"PYTHONPATH": os.pathsep.join(sys.path)} | environ
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._heard = asyncio.Event()
        self.output = bytearray()
        self.ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Give its process id."""
        if self._process is None:
            raise NotTriedError("the program does not run")
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Tell whether it still runs."""
        return self._process is not None and self._process.returncode is None

    async def __aenter__(self) -> Self:
        self._process = await self._start("run", "-c", "config.yaml")
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                self._readers.append(asyncio.create_task(self._read(stream)))
        try:
            await self.said(b'"event": "ready"')
        except NotTriedError:
            await self.__aexit__()
            said = self.output.decode(errors="replace").strip()
            raise NotTriedError(f"the program did not start: {said[-500:]}") from None
        lines = (line for line in self.output.splitlines() if b'"event": "ready"' in line)
        self.ready = json.loads(next(lines))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            # Not by `Process.kill`, which collects a process that has ended: `wait` is to do that.
            with contextlib.suppress(ProcessLookupError):
                if self._process.returncode is None:
                    os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        await asyncio.gather(*self._readers)

    async def said(self, text: bytes) -> None:
        """Wait until it has written something."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while text not in self.output:
                    if all(reader.done() for reader in self._readers):
                        raise NotTriedError("the program ended")
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise NotTriedError("the program did not say what it should") from None

    async def judge(self, command: str, name: str, text: str) -> tuple[int, bytes]:
        """Run another of its commands with this configuration: the exit status and all output."""
        file = self._folder / f"{command}-{name}"
        await asyncio.to_thread(file.write_text, text, encoding="utf-8")
        process = await self._start(command, "-c", file.name)
        try:
            async with asyncio.timeout(_PATIENCE):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NotTriedError(f"ekeko {command} did not end") from None
        return process.returncode or 0, out + err

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(*self._command, *words),
            cwd=self._folder,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(65536):
            self.output += piece
            self._heard.set()
        self._heard.set()
