"""Taking turns, and what comes of it: samples of each contestant, targets, ratios.

Machines are noisy, and their speed drifts. So all contestants take short turns in each round, in
an order that rotates; a figure is the median over the rounds, and a ratio is the median of the
ratios within the rounds.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.processes import Failed, NotInstalled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Reading = dict[str, float]


@dataclass(frozen=True)
class Metric:
    """One column: `key` in readings, and how it is shown."""

    key: str
    label: str
    digits: int = 1


@dataclass(frozen=True)
class Target:
    """`of` a contestant at most so many times, or `of` nobody at most so much."""

    metric: str
    at_most: float
    of: str | None = None
    subject: str = "ekeko"


@dataclass
class Table:
    """The outcome of a row, or of a part of one.

    Ratios are of the first metric: ekeko's to each other's, or each one's to that of the `base`
    that is named for it.
    """

    title: str
    what: str
    metrics: tuple[Metric, ...]
    targets: Sequence[Target] = ()
    base: Mapping[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: bool = False

    def take_turns(self, contestants: Mapping[str, Callable[[], Reading]], rounds: int) -> None:
        """Measure all in each round, after one that does not count."""
        for number in range(rounds + 1):
            turn = f"round {number} of {rounds}" if number else "warm-up"
            sys.stderr.write(f"{self.title}: {turn}\n")
            for name in _rotated(list(contestants), number):
                with self.noting(name):
                    reading = {} if name in self.absent else contestants[name]()
                    if number:
                        self._add(name, reading)
        self.samples = {name: self.samples[name] for name in contestants if name in self.samples}

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Leave a contestant out from now on if it is not there or fails, and note why."""
        try:
            yield
        except NotInstalled as missing:
            self.absent[name] = f"not measured: {missing}"
        except Failed as failure:
            self.failed = True
            self.samples.pop(name, None)
            self.absent[name] = f"failed: {failure}"
            sys.stderr.write(f"{self.title}: {name} {self.absent[name]}\n")

    def _add(self, name: str, reading: Reading) -> None:
        for key, value in reading.items():
            self.samples.setdefault(name, {}).setdefault(key, []).append(value)

    def median(self, name: str, key: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.samples[name][key])

    def shown_ratio(self, name: str) -> float | None:
        """Return what the table's last column shows of a contestant."""
        one, other = (name, self.base.get(name)) if self.base else ("ekeko", name)
        if other is None or one == other:
            return None
        return self.ratio(self.metrics[0].key, one, other)

    def ratio(self, key: str, name: str, of: str) -> float | None:
        """Return the median of the rounds' ratios, None if one of both was not measured."""
        ours, theirs = (self.samples.get(each, {}).get(key) for each in (name, of))
        if ours is None or theirs is None:
            return None
        ratios = [one / other for one, other in zip(ours, theirs, strict=True) if other]
        return statistics.median(ratios) if ratios else None

    def reached(self, target: Target) -> tuple[float | None, bool]:
        """Return the figure that a target is about, None if not measured, and whether it holds."""
        if target.of is not None:
            figure = self.ratio(target.metric, target.subject, target.of)
        elif target.subject in self.samples:
            figure = self.median(target.subject, target.metric)
        else:
            figure = None
        return figure, figure is not None and figure <= target.at_most


def _rotated(names: list[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return names[by:] + names[:by]
