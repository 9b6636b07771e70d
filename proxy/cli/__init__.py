"""The `ekeko` command: one module here for each subcommand.

Such a module has `configure(parser)`, which declares its arguments, and `run(args)`, which does
the work and returns the exit status: 0 fine, 1 failed at run time, 2 wrong usage or configuration.
It is imported only when its command is asked for, so that no command waits for another's imports.
Messages for people go to stderr.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from proxy import __version__
from proxy.process import leave_stdout, no_authorities

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "run": "run the proxy",
    "sandbox": "try the proxy without credentials, in front of stand-ins of Eka and Eko",
    "check": "report every mistake in the configuration",
    "headers": "print the header fields that the proxy would attach",
    "selftest": "attack this very program in the sandbox, and show what held",
    "schema": "print the JSON Schema of the configuration",
    "version": "print the version",
}


class Command(Protocol):
    """What each subcommand's module has."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; return the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status, that of wrong usage and `--help` too."""
    words = sys.argv[1:] if argv is None else argv
    try:
        args = _parser(words).parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return _module(args.command).run(args)
    except BrokenPipeError:
        leave_stdout()  # whoever read the output has gone, as `head` does
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ekeko", description="A local authenticating reverse proxy for Eka Care and Eko."
    )
    parser.add_argument("--version", action="version", version=f"ekeko {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        if name in words:
            _module(name).configure(command)
    return parser


def _module(name: str) -> Command:
    with no_authorities():
        return cast("Command", import_module(f"proxy.cli.{name}"))
