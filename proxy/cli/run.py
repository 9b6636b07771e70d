"""`ekeko run`: the proxy, until a signal ends it."""

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
    from collections.abc import Callable, Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Serve: 0 after a drain, 1 if an address cannot be had, 2 for a bad configuration."""
    try:
        settings = config.read(args.config)
    except config.ConfigError as error:
        print_mistakes(error)
        return 2
    process.set_up_logging(settings.log.level)
    process.raise_descriptor_limit(settings.limits.connections)
    writer = process.StdoutWriter()
    try:
        return process.run(_serve(args.config, settings, writer.write))
    finally:
        writer.close()


async def _serve(path: Path, settings: config.Settings, write: Callable[[str], None]) -> int:
    app = App(settings, clock=SystemClock(), write=write)
    process.handle_signals(app, reload=lambda: _reload(path, app))
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


async def _reload(path: Path, app: App) -> None:
    """Read the configuration again; a bad one is logged, and the old one stays."""
    try:
        settings = await asyncio.to_thread(config.read, path)
        await app.reload(settings)
        process.set_up_logging(settings.log.level)
    except config.ConfigError as error:
        _log_refusal(error.problems)
    except (SecretError, TlsError, OSError) as error:
        _log_refusal([error])


def _log_refusal(reasons: Iterable[object]) -> None:
    for reason in reasons:
        logger.error("the configuration stays as it was: %s", reason)
