"""`ekeko selftest`: attacks on this very program, in the sandbox, as evidence that it holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxy import process
from proxy.clock import SystemClock
from proxy.selftest import program, report, runner
from proxy.selftest.case import NotTriedError

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help=f"a group ({', '.join(runner.GROUPS)}) or a case, GROUP/CASE; repeat for more",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and try none")
    parser.add_argument("--json", action="store_true", help="print the evidence as JSON")


def run(args: argparse.Namespace) -> int:
    """Try them: 0 if all held, 1 if one gave way or could not be tried, 2 for an unknown name."""
    try:
        cases = list(runner.chosen(args.only))
    except runner.NoSuchCaseError as error:
        print(f"--only {error}: expected a group or a case, as --list has them", file=sys.stderr)
        return 2
    if args.list:
        print(report.listed(cases))
        return 0
    try:
        outcomes = process.run(runner.attack(cases, program.COMMAND))
    except NotTriedError as error:
        print(error, file=sys.stderr)
        return 1
    print(report.evidence(outcomes, SystemClock()) if args.json else report.table(outcomes))
    return 0 if all(each.result == "held" for each in outcomes) else 1
