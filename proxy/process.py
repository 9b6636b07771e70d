"""A process that serves: the event loop, logging, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
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


def write_stdout(text: str) -> None:
    """Write whole lines; a reader that has gone must not take the proxy with it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for good
    except OSError as error:
        logger.error("lines of the access log are lost: %s", error.strerror)  # noqa: TRY400


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
