"""How a worker process is started: a new interpreter, with one end of a channel.

Not a fork of the supervisor: that has threads, an event loop and connections, none of which
survive one in order. What a worker has to know comes over the channel, so neither its arguments
nor its environment hold more than the supervisor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket


class Process(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait(self) -> int:
        """Wait for its end; return its exit status, below zero for a signal."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Hire(Protocol):
    """Starts workers."""

    async def __call__(self, number: int, channel: socket.socket) -> Process:
        """Start one at the other end of a channel; OSError if it cannot be."""
        ...


async def hire(number: int, channel: socket.socket) -> Process:
    """Start a worker process.

    It has the supervisor's import path and no current directory on it, so it runs the same code
    wherever it starts; and a session of its own, so that a terminal's Ctrl-C is for the
    supervisor alone.
    """
    return _Process(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "proxy.workers", str(number), str(channel.fileno())),
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[channel.fileno()],
            start_new_session=True,
        )
    )


class _Process:
    """One process of asyncio's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            self._process.kill()
