"""Programs that are started, watched and ended; what they cost, as Linux's /proc tells."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
_PATIENCE = 5.0  # seconds that a program has for ending by itself


class Failed(Exception):  # noqa: N818 - says what became of a measurement
    """A program did not do what it was measured for; the text says what happened."""


class NotInstalled(Exception):  # noqa: N818 - not a failure: the peer is left out
    """A peer's program is not on this machine; the text says what to install."""


# Compiling the sources anew at every start would be charged to the checkout's own program alone.
_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


class Process:
    """A program in a session of its own, together with whatever it starts there."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cpus: set[int],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._errors = log.with_suffix(".err")
        # Opened for appending, so that lines of all of its processes stay whole.
        with log.open("ab") as stdout, self._errors.open("ab") as stderr, _pinned(cpus):
            self._popen = subprocess.Popen(  # noqa: S603
                words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**_ENVIRONMENT, **(environment or {})},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def check(self) -> None:
        """Failed, with its last words, if it has ended."""
        if self._popen.poll() is not None:
            words = self._errors.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise Failed(f"it ended: {' '.join(words) or 'without a word'}")

    def stop(self) -> None:
        """End it and all that it started; those that do not heed SIGTERM are killed."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads, and of children that have ended."""
        return sum(int(field) for stat in self._stats() for field in stat[11:15]) * _TICK

    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS:")

    def forget_peak(self) -> None:
        """Let `peak_memory` count from now on; root alone may, where a program hides its memory."""
        for pid in self._members():
            with contextlib.suppress(PermissionError):
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_memory(self) -> int:
        """Resident bytes at most."""
        return self._status("VmHWM:")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _members(self) -> list[int]:
        return [int(stat[-1]) for stat in self._stats()]

    def _stats(self) -> list[list[str]]:
        """Return /proc/PID/stat from the state on, then the pid, of each process in the session."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                if stat[3] == str(self.pid):
                    found.append([*stat, folder.name])
        return found

    def _status(self, key: str) -> int:
        total = 0
        for pid in self._members():
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(key):
                    total += int(line.split()[1]) * 1024
        return total


def share_out_cpus() -> tuple[set[int], set[int]]:
    """Return a core for the proxies, and those of what calls and answers; apart if possible."""
    cpus = sorted(os.sched_getaffinity(0))
    return {cpus[-1]}, set(cpus[:-1] or cpus)


@contextlib.contextmanager
def _pinned(cpus: set[int]) -> Iterator[None]:
    """Let what is started meanwhile run on these cores: affinity is inherited."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit(wanted: int = 65_536) -> None:
    """Allow this process and its children as many open files as can be had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, process: Process, *, within: float = 60.0) -> None:
    """Return as soon as something accepts there; Failed if the process ends, or after a while."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        process.check()
        time.sleep(0.001)
    raise Failed(f"it did not listen within {within:.0f} s")
