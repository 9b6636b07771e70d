"""A process that serves: the event loop, logging, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from proxy.app import App

logger = logging.getLogger(__name__)

_DESCRIPTORS_TO_SPARE = 64


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine to its end on uvloop, or the standard loop where that is not installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def set_up_logging(level: str) -> None:
    """Send the program's own log to stderr; stdout is the access log's. May be called again."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    # aiohttp's and asyncio's debug lines quote what callers sent.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


class StdoutWriter:
    """Writes lines in a thread of its own: a reader that stalls or leaves stalls nothing here.

    What is not written yet is bounded; beyond that lines are dropped, and their number is logged.
    """

    def __init__(self, *, blocks_at_most: int = 256) -> None:
        self._blocks: queue.Queue[str | None] = queue.Queue(blocks_at_most)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, lines: str) -> None:
        """Have whole lines written."""
        try:
            self._blocks.put_nowait(lines)
        except queue.Full:
            self._dropped += lines.count("\n")
        else:
            if self._dropped:
                logger.warning("%d lines of the access log were dropped", self._dropped)
                self._dropped = 0

    def close(self, timeout: float = 2.0) -> None:
        """Write the rest, for so many seconds at most."""
        with contextlib.suppress(queue.Full):
            self._blocks.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (lines := self._blocks.get()) is not None:
            try:
                sys.stdout.write(lines)
                sys.stdout.flush()
            except BrokenPipeError:
                leave_stdout()
            except (OSError, ValueError) as error:
                logger.warning("lines of the access log are lost: %s", error)


def leave_stdout() -> None:
    """Have later writes go nowhere: its reader has gone, and Python would complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def raise_descriptor_limit(connections: int) -> None:
    """Ask for as many file descriptors as the configured connections need."""
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _DESCRIPTORS_TO_SPARE
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # the system's own bound is below `hard`
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def handle_signals(
    app: App, *, reload: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> None:
    """Let SIGTERM and SIGINT drain the proxy, and SIGHUP read its configuration again.

    To be called before the proxy starts: a signal that comes early is not lost. One reload is
    under way at a time, and a SIGHUP meanwhile asks for one more.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    async def reload_when_asked() -> None:
        while reload is not None:
            await asked.wait()
            asked.clear()
            await reload()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    app.do_meanwhile(reload_when_asked())
