"""`ekeko run`: the proxy, in one process or several, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from proxy import config, process
from proxy.app import App
from proxy.cli.options import add_config, print_mistakes
from proxy.clock import SystemClock
from proxy.secrets import SecretError
from proxy.tls import TlsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from proxy.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Serve: 0 after a drain, 1 if an address cannot be had, 2 for a bad configuration."""
    process.keep_memory_private()
    try:
        settings = config.read(args.config)
    except config.ConfigError as error:
        print_mistakes(error)
        return 2
    process.set_up_logging(settings.log.level)
    # Workers inherit it.
    process.raise_descriptor_limit(settings.share(settings.limits.connections))
    writer = process.StdoutWriter()
    try:
        return process.run(_serve(args.config, settings, writer))
    finally:
        writer.close()


async def _serve(path: Path, settings: config.Settings, writer: process.StdoutWriter) -> int:
    app = _app(settings, writer)
    process.handle_signals(app, reload=lambda: _reload(path, app, settings.workers))
    try:
        await app.start()
    except (SecretError, TlsError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    await app.run()
    return 0


def _app(settings: config.Settings, writer: process.StdoutWriter) -> App | Supervisor:
    clock = SystemClock()
    if settings.workers == 1:
        return App(settings, clock=clock, write=writer.write)
    from proxy.workers import hire, supervisor  # noqa: PLC0415 - one process needs none of it

    async def announce(line: str) -> None:
        writer.write(line)
        await writer.written()

    return supervisor.Supervisor(settings, clock=clock, announce=announce, hire=hire.hire)


async def _reload(path: Path, app: App | Supervisor, workers: int) -> None:
    """Read the configuration again; a bad one is logged, and the old one stays."""
    try:
        settings = await asyncio.to_thread(config.read, path)
        if settings.workers == workers:
            await app.reload(settings)
            process.set_up_logging(settings.log.level)
        else:
            # Shares of the milliseconds would overlap while some workers go by the old number.
            why = f"cannot change while ekeko runs: expected {workers} as before, or a restart"
            _log_refusal([settings.places.at_value(("workers",), why)])
    except config.ConfigError as error:
        _log_refusal(error.problems)
    except (SecretError, TlsError, OSError) as error:
        _log_refusal([error])


def _log_refusal(reasons: Iterable[object]) -> None:
    for reason in reasons:
        logger.error("the configuration stays as it was: %s", reason)
