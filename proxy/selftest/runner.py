"""Tries cases one after another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from proxy.selftest import leaks, load, logins, smuggling, twice, vendors, where, who
from proxy.selftest.case import GaveWayError, NotTriedError
from proxy.selftest.ground import Ground

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from proxy.selftest.case import Case

Result = Literal["held", "gave way", "not tried"]
GROUPS: Final = {
    "who": who,
    "where": where,
    "smuggling": smuggling,
    "vendors": vendors,
    "leaks": leaks,
    "twice": twice,
    "logins": logins,
    "load": load,
}
_AT_MOST = 30.0  # seconds for one case


class Outcome(NamedTuple):
    """What came of a case."""

    group: str
    case: Case
    result: Result
    seen: str


class NoSuchCaseError(Exception):
    """A name that is neither a group's nor a case's."""


def chosen(names: Iterable[str] = ()) -> Iterator[tuple[str, Case]]:
    """Yield the cases of these groups and names, all where there is none; NoSuchCaseError."""
    wanted = set(names)
    every = [(group, case) for group, module in GROUPS.items() for case in module.CASES]
    known = {*GROUPS, *(f"{group}/{case.name}" for group, case in every)}
    if unknown := wanted - known:
        raise NoSuchCaseError(min(unknown))
    for group, case in every:
        if not wanted or wanted & {group, f"{group}/{case.name}"}:
            yield group, case


async def attack(cases: Sequence[tuple[str, Case]], command: Sequence[str]) -> list[Outcome]:
    """Start the program and try the cases; NotTriedError if it does not start."""
    async with Ground(command) as ground:
        return [Outcome(group, case, *await tried(case, ground)) for group, case in cases]


async def tried(case: Case, ground: Ground) -> tuple[Result, str]:
    """Try a case whose control got through; return what came of it, and what was seen."""
    try:
        await ground.ordinary(case.route)
    except (GaveWayError, OSError) as error:
        return "not tried", f"nothing was served before: {error}"
    try:
        async with asyncio.timeout(_AT_MOST):
            return "held", await case.attack(ground)
    except GaveWayError as error:
        return "gave way", str(error)
    except ConnectionRefusedError:
        return "gave way", "the proxy serves nobody any more"
    except NotTriedError as error:
        return "not tried", str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the case has not been seen to hold
        return "not tried", type(error).__name__
