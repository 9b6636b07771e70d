"""A process that serves: the event loop, logging, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from proxy.app import App

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


def write_stdout(text: str) -> None:
    """Write whole lines; a reader that has gone must not take the proxy with it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for good


def raise_descriptor_limit(connections: int) -> None:
    """Ask for as many file descriptors as the configured connections need."""
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _DESCRIPTORS_TO_SPARE
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def handle_signals(
    app: App, *, reload: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> None:
    """Let SIGTERM and SIGINT drain the proxy, and SIGHUP read its configuration again."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        if reload is not None:
            task = loop.create_task(reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
