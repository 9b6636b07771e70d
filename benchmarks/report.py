"""What is shown: text for a terminal, Markdown for the documentation, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.proxies import ALL
from proxy import exchange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Table, Target


def terminal(table: Table) -> str:
    """Lay a table out in columns."""
    lines = _lines(table)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [f"== {table.title}: {table.what}"]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        shown.append("  ".join(cells).rstrip())
    return "\n".join([*shown, *_remarks(table), ""])


def markdown(table: Table) -> str:
    """Lay a table out for the documentation."""
    header, *lines = _lines(table)
    rule = ["---", *["---:"] * (len(header) - 1)]
    rows = [f"| {' | '.join(cells)} |" for cells in (header, rule, *lines)]
    remarks = [f"- {remark}" for remark in _remarks(table)]
    return "\n".join([f"### {table.title}", "", table.what, "", *rows, "", *remarks, ""])


def as_json(tables: Sequence[Table], conditions: Sequence[str]) -> str:
    """Give all samples, and how the targets were met."""
    return json.dumps({"conditions": conditions, "tables": [*map(_data, tables)]}, indent=2)


def conditions(proxy_cpus: set[int], load_cpus: set[int], rounds: int, seconds: float) -> list[str]:
    """Say what was measured, where, and how."""
    proxy, rest = (", ".join(map(str, sorted(cpus))) for cpus in (proxy_cpus, load_cpus))
    cores = f"the proxy alone on core {proxy}, the calling and the answering side on {rest}"
    if not proxy_cpus.isdisjoint(load_cpus):
        cores = "the proxy shares it with the calling and the answering side"
    python = f"Python {platform.python_version()}, aiohttp {version('aiohttp')}"
    return [
        f"{_cpu_model()}, {os.cpu_count()} cores: {cores}; Linux {platform.release()}; {python}.",
        f"Turns of {seconds:g} s in {rounds} rounds, in an order that rotates, after a warm-up.",
        "A figure is the median of the rounds (least to most), a ratio the median of their ratios.",
        "CPU is user and system time of all the proxy's processes and threads.",
        "The peers have no policy, log or metrics. ekeko has them all, its log goes to a file.",
        f"ekeko is {'interpreted' if (exchange.__file__ or '').endswith('.py') else 'compiled'}.",
        *(f"{proxy.name}: {proxy.what}. {proxy.tell_version()}".rstrip() for proxy in ALL),
    ]


def _lines(table: Table) -> list[list[str]]:
    ratio = "÷ first" if table.base else "ekeko ÷ this"
    lines = [["", *(metric.label for metric in table.metrics), ratio]]
    for name, samples in table.samples.items():
        cells = [_figure(samples.get(metric.key), metric.digits) for metric in table.metrics]
        shown = table.shown_ratio(name)
        lines.append([name, *cells, "" if shown is None else f"{shown:.2f}"])
    return lines


def _figure(values: list[float] | None, digits: int) -> str:
    if values is None:
        return ""
    middle, least, most = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({least} to {most})"


def _remarks(table: Table) -> list[str]:
    absent = [f"{name} {why}" for name, why in table.absent.items()]
    return absent + [f"target: {_judge(table, target)}" for target in table.targets]


def _judge(table: Table, target: Target) -> str:
    label = next(metric.label for metric in table.metrics if metric.key == target.metric)
    figure, reached = table.reached(target)
    of = "" if target.of is None else f" × {target.of}"
    verdict = "not measured"
    if figure is not None:
        verdict = f"{figure:.2f}, {'reached' if reached else 'NOT REACHED'}"
    return f"{target.subject}: {label} ≤ {target.at_most:g}{of}: {verdict}"


def _data(table: Table) -> dict[str, Any]:
    targets = []
    for target in table.targets:
        figure, reached = table.reached(target)
        targets.append(asdict(target) | {"figure": figure, "reached": reached})
    return {
        "title": table.title,
        "what": table.what,
        "samples": table.samples,
        "absent": table.absent,
        "targets": targets,
    }


def _numbers(cpus: set[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
