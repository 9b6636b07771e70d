"""`ekeko check`: every mistake in the configuration at once; no network, no secrets needed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from proxy import config
from proxy.cli.options import add_config

if TYPE_CHECKING:
    import argparse

    from proxy.config import Problem, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list of mistakes and notes to stdout"
    )


def run(args: argparse.Namespace) -> int:
    """Report mistakes with status 2; notes, on what may not work here and now, with status 0."""
    try:
        settings = config.load(args.config)
    except config.ConfigError as error:
        _report(error.problems, "error", as_json=args.json)
        return 2
    _report(config.notes(settings), "note", as_json=args.json)
    if not args.json:
        print(f"{args.config}: {_summary(settings)}", file=sys.stderr)
    return 0


def _report(problems: list[Problem], severity: str, *, as_json: bool) -> None:
    if as_json:
        found = [{"severity": severity, **problem._asdict()} for problem in problems]
        print(json.dumps(found, indent=2))
        return
    prefix = "note: " if severity == "note" else ""
    for problem in problems:
        print(f"{prefix}{problem}", file=sys.stderr)


def _summary(settings: Settings) -> str:
    routes = _count(len(settings.routes), "route")
    return f"{routes}, {_count(len(settings.credentials), 'credential')}, no mistakes"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
