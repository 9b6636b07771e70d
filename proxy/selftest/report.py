"""The result as a table for people, and as a file that proves what was tried with what."""

from __future__ import annotations

import json
import platform
import ssl
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Final

from proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.clock import Clock
    from proxy.selftest.case import Case
    from proxy.selftest.runner import Outcome

# What the program is made of: its dependencies, and what parses for them.
LIBRARIES: Final = (
    "aiohappyeyeballs",
    "aiohttp",
    "cachetools",
    "httptools",
    "multidict",
    "prometheus-client",
    "pydantic",
    "pydantic-core",
    "PyYAML",
    "uvloop",
    "yarl",
)
_RESULTS: Final = ("held", "gave way", "not tried")


def table(outcomes: Sequence[Outcome]) -> str:
    """Write what was tried and what was seen, and the sums."""
    lines = []
    for group, case, result, seen in outcomes:
        lines.append(f"{result:<9} {group}/{case.name}  (threat {case.threat})")
        lines.append(f"          {case.tried}")
        if result != "held":
            lines.append(f"          Expected: {case.expected}.")
        lines.append(f"          Seen: {seen}.")
    return "\n".join([*lines, "", summary(outcomes)])


def summary(outcomes: Sequence[Outcome]) -> str:
    """Write one line: with what, how many held."""
    counts = counted(outcomes)
    sums = ", ".join(f"{number} {result}" for result, number in counts.items())
    return f"ekeko {__version__}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}: {sums}"


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count the results."""
    return {result: sum(each.result == result for each in outcomes) for result in _RESULTS}


def evidence(outcomes: Sequence[Outcome], clock: Clock) -> str:
    """Write all as JSON: what was tried, when, and with which versions."""
    date = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
    return json.dumps(
        {
            "ekeko": __version__,
            "date": date.isoformat(timespec="seconds"),
            "python": sys.version,
            "platform": platform.platform(),
            "openssl": ssl.OPENSSL_VERSION,
            "libraries": {name: _version(name) for name in LIBRARIES},
            "results": counted(outcomes),
            "cases": [
                _described(group, case) | {"result": result, "seen": seen}
                for group, case, result, seen in outcomes
            ],
        },
        indent=2,
    )


def listed(cases: Sequence[tuple[str, Case]]) -> str:
    """List cases, a line each."""
    return "\n".join(f"{group}/{case.name}: {case.tried}" for group, case in cases)


def _described(group: str, case: Case) -> dict[str, object]:
    return {
        "case": f"{group}/{case.name}",
        "threat": case.threat,
        "tried": case.tried,
        "expected": case.expected,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
