"""Metrics: counted in plain dictionaries as requests end; `exposition` puts them into words.

prometheus-client's own counters take a lock and look labels up on every step, which would cost a
fair part of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from proxy.observe import CALLER_CLOSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxy.observe import Event

# Seconds. Fine around what a proxy adds, coarse up to what a slow vendor takes.
BUCKETS: Final = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RouteState(NamedTuple):
    """A route as it is at the moment."""

    name: str
    in_flight: int
    connections: dict[str, int]


class TokenState(NamedTuple):
    """A credential's token as it is at the moment; `expires_at` in seconds since the epoch."""

    credential: str
    expires_at: float


class State(Protocol):
    """Tells what is so at the moment, as against what has happened."""

    def route_states(self) -> Iterable[RouteState]:
        """List the routes; one may come several times, by generation and worker."""
        ...

    def token_states(self) -> Iterable[TokenState]:
        """List the tokens."""
        ...


class RouteCounts:
    """What happened on one route."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.errors: dict[str, int] = defaultdict(int)
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class Metrics:
    """Counts events (an observer).

    `routes` by their names, `fetches` by credential and outcome, `limits` by their keys.
    """

    def __init__(self) -> None:
        self.routes: dict[str, RouteCounts] = defaultdict(RouteCounts)
        self.fetches: dict[tuple[str, str, str], int] = defaultdict(int)
        self.limits: dict[str, int] = defaultdict(int)
        self._state: State | None = None

    def watch(self, state: State) -> None:
        """Take present figures from here."""
        self._state = state

    def exchanged(self, event: Event) -> None:
        """Count an exchange."""
        counts = self.routes[event.route]
        duration = event.duration
        method = event.method if event.method in _METHODS else "OTHER"
        counts.requests[method, event.status] += 1
        counts.buckets[bisect_left(BUCKETS, duration)] += 1
        counts.seconds += duration
        if event.code is not None and event.code != CALLER_CLOSED:  # that is answered to nobody
            counts.errors[event.code] += 1

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        """Count a call to a token endpoint."""
        self.fetches[credential, grant, outcome] += 1

    def limited(self, limit: str) -> None:
        """Count a refusal at a limit."""
        self.limits[limit] += 1

    def figures(self) -> dict[str, Any]:
        """Give all counts in plain values, for another process to add."""
        return {
            "routes": [
                {
                    "name": name,
                    "requests": [[*labels, count] for labels, count in counts.requests.items()],
                    "errors": dict(counts.errors),
                    "buckets": list(counts.buckets),
                    "seconds": counts.seconds,
                }
                for name, counts in self.routes.items()
            ],
            "fetches": [[*labels, count] for labels, count in self.fetches.items()],
            "limits": dict(self.limits),
        }

    def add(self, figures: Mapping[str, Any]) -> None:
        """Count in what another process has counted (its `figures`)."""
        for route in figures["routes"]:
            counts = self.routes[route["name"]]
            for method, status, count in route["requests"]:
                counts.requests[method, status] += count
            for code, count in route["errors"].items():
                counts.errors[code] += count
            counts.buckets = [a + b for a, b in zip(counts.buckets, route["buckets"], strict=True)]
            counts.seconds += route["seconds"]
        for credential, grant, outcome, count in figures["fetches"]:
            self.fetches[credential, grant, outcome] += count
        for limit, count in figures["limits"].items():
            self.limits[limit] += count

    def text(self) -> bytes:
        """Write everything in Prometheus's text format."""
        from proxy.admin import exposition  # noqa: PLC0415 - see AdminPages

        return exposition.text(self, self._state)

    def totals(self) -> dict[str, dict[str, int]]:
        """Sum up each route, for the status page."""
        return {
            name: {
                "requests": sum(counts.requests.values()),
                "errors": sum(counts.errors.values()),
            }
            for name, counts in self.routes.items()
        }
