"""`ekeko headers`: what the proxy would attach, for use with `curl -H @-`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxy import config, credentials, process
from proxy.cli.options import add_config, print_mistakes
from proxy.clock import SystemClock
from proxy.credentials.stamps import StampStore
from proxy.errors import ProxyError
from proxy.observe import Observers
from proxy.tls import TlsError
from proxy.tokens import TokenStore

if TYPE_CHECKING:
    import argparse


class _FixedClock(SystemClock):
    """A wall clock that stands still, for `--at`."""

    def __init__(self, milliseconds: int) -> None:
        super().__init__()
        self._milliseconds = milliseconds

    def wall_ms(self) -> int:
        return self._milliseconds


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    parser.add_argument("credential", metavar="CREDENTIAL", help="a name under `credentials`")
    parser.add_argument(
        "--at", metavar="MS", type=int, help="milliseconds since the epoch to sign for"
    )
    parser.add_argument(
        "--field",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a field that a request_hash covers; repeat for each",
    )


def run(args: argparse.Namespace) -> int:
    """Print the header lines: 1 if none are to be had, 2 for wrong usage or configuration."""
    if not all("=" in each for each in args.field):
        print("--field: expected NAME=VALUE", file=sys.stderr)  # it may be somebody's number
        return 2
    process.keep_memory_private()
    fields = dict(each.partition("=")[::2] for each in args.field)
    process.set_up_logging("error")  # a failure is printed below
    try:
        settings = config.read(args.config)
    except config.ConfigError as error:
        print_mistakes(error)
        return 2
    chosen = settings.credentials.get(args.credential)
    if chosen is None:
        names = ", ".join(settings.credentials) or "none"
        print(f"no credential is named '{args.credential}': expected {names}", file=sys.stderr)
        return 2
    if chosen.kind != "eko" and (fields or args.at is not None):
        print("--at and --field are for credentials of kind eko, which sign", file=sys.stderr)
        return 2
    clock = SystemClock() if args.at is None else _FixedClock(args.at)
    tools = credentials.Tools(clock, TokenStore(clock), StampStore(clock), Observers([]))
    return process.run(_print(args.credential, chosen, tools, fields))


async def _print(
    name: str, settings: credentials.AnySettings, tools: credentials.Tools, fields: dict[str, str]
) -> int:
    try:
        credential = credentials.build(name, settings, tools)
    except TlsError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        authorization = await credential.preview(fields)
    except ProxyError as error:
        print(error.detail, file=sys.stderr)
        return 2 if error.code == "signing_input_missing" else 1
    finally:
        await credential.close()
    print(authorization.lines.decode().replace("\r\n", "\n"), end="")
    return 0
