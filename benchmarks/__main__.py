"""The command line: which rows, how long, where the results go."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report, upstream
from benchmarks.lab import Lab
from benchmarks.processes import raise_file_limit, share_out_cpus
from benchmarks.rows import MIB, ROWS

if TYPE_CHECKING:
    from benchmarks.rounds import Table

NEEDED = ("nginx", "wrk", "openssl")


def main() -> int:
    options = _parse()
    if options.list:
        for name, row in ROWS.items():
            sys.stdout.write(f"{name:8} {row.__doc__}\n")
        return 0
    if not Path("/proc/self/clear_refs").exists():
        return _complain("Linux is needed: processor time and memory are read from /proc")
    # where Debian has servers, and few users look
    os.environ["PATH"] += os.pathsep + os.pathsep.join(["/usr/local/sbin", "/usr/sbin"])
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        return _complain(f"please install {' and '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is ended
    try:
        tables = _measure(options)
    except KeyboardInterrupt:
        return _complain("interrupted")
    return 1 if any(table.failed for table in tables) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures ekeko beside its peers, in one run: some 20 minutes for all rows.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows (default: all)")
    parser.add_argument("--list", action="store_true", help="tell what rows there are")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of one turn (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 1 s, less to stream and to hold"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write tables there")
    options = parser.parse_args()
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 2.0)
    return options


def _measure(options: argparse.Namespace) -> list[Table]:
    raise_file_limit()
    proxy_cpus, load_cpus = share_out_cpus()
    said = report.conditions(proxy_cpus, load_cpus, options.rounds, options.seconds)
    if options.quick:
        said.append("Quick: streams of 256 MiB, not 1 GiB; 1,000 idle connections, not 10,000.")
    sys.stdout.write("\n".join([*said, "", ""]))
    os.sched_setaffinity(0, load_cpus)
    tables = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        answering = upstream.start(stack, folder / "upstream", load_cpus)
        lab = Lab(
            folder,
            answering,
            proxy_cpus,
            rounds=options.rounds,
            seconds=options.seconds,
            stream_bytes=(256 if options.quick else 1024) * MIB,
            idle_connections=1000 if options.quick else 10_000,
        )
        for name in options.rows or ROWS:
            for table in ROWS[name](lab):
                tables.append(table)
                sys.stdout.write(report.terminal(table) + "\n")
                sys.stdout.flush()
                _write(options, tables, said)  # what is done is kept, whatever comes
    return tables


def _write(options: argparse.Namespace, tables: list[Table], said: list[str]) -> None:
    if options.json:
        options.json.write_text(report.as_json(tables, said) + "\n", encoding="utf-8")
    if options.markdown:
        text = "\n".join(f"- {line}" for line in said) + "\n\n"
        text += "\n".join(map(report.markdown, tables))
        options.markdown.write_text(text, encoding="utf-8")


def _complain(text: str) -> int:
    sys.stderr.write(f"benchmark: {text}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
