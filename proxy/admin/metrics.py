"""Metrics: counted in plain dictionaries as requests end, turned into Prometheus's form on demand.

prometheus-client's own counters take a lock and look labels up on every step, which would cost a
fair part of a request; its collector interface and text format are what is used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy.observe import CALLER_CLOSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from proxy.observe import Event

# Seconds. Fine around what a proxy adds, coarse up to what a slow vendor takes.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
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


class _RouteCounts:
    """What happened on one route."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.errors: dict[str, int] = defaultdict(int)
        self.buckets = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0


class Metrics(Collector):
    """Counts events (an observer) and presents them (a Prometheus collector)."""

    def __init__(self) -> None:
        self._routes: dict[str, _RouteCounts] = defaultdict(_RouteCounts)
        self._fetches: dict[tuple[str, str, str], int] = defaultdict(int)
        self._state: State | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def watch(self, state: State) -> None:
        """Take present figures from here."""
        self._state = state

    def exchanged(self, event: Event) -> None:
        """Count an exchange."""
        counts = self._routes[event.route]
        duration = event.duration
        method = event.method if event.method in _METHODS else "OTHER"
        counts.requests[method, event.status] += 1
        counts.buckets[bisect_left(_BUCKETS, duration)] += 1
        counts.seconds += duration
        if event.code is not None and event.code != CALLER_CLOSED:  # that is answered to nobody
            counts.errors[event.code] += 1

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        """Count a call to a token endpoint."""
        self._fetches[credential, grant, outcome] += 1

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
                for name, counts in self._routes.items()
            ],
            "fetches": [[*labels, count] for labels, count in self._fetches.items()],
        }

    def add(self, figures: Mapping[str, Any]) -> None:
        """Count in what another process has counted (its `figures`)."""
        for route in figures["routes"]:
            counts = self._routes[route["name"]]
            for method, status, count in route["requests"]:
                counts.requests[method, status] += count
            for code, count in route["errors"].items():
                counts.errors[code] += count
            counts.buckets = [a + b for a, b in zip(counts.buckets, route["buckets"], strict=True)]
            counts.seconds += route["seconds"]
        for credential, grant, outcome, count in figures["fetches"]:
            self._fetches[credential, grant, outcome] += count

    def text(self) -> bytes:
        """Write everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def totals(self) -> dict[str, dict[str, int]]:
        """Sum up each route, for the status page."""
        return {
            name: {
                "requests": sum(counts.requests.values()),
                "errors": sum(counts.errors.values()),
            }
            for name, counts in self._routes.items()
        }

    def collect(self) -> Iterator[Metric]:
        """Yield every family (prometheus-client's interface)."""
        yield from self._happened()
        if self._state is not None:
            yield from _present(self._state)

    def _happened(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ekeko_requests", "Requests answered", labels=["route", "method", "status"]
        )
        errors = CounterMetricFamily(
            "ekeko_proxy_errors", "Errors that the proxy itself answered", labels=["route", "code"]
        )
        durations = HistogramMetricFamily(
            "ekeko_request_duration_seconds", "From a request's head to its end", labels=["route"]
        )
        fetches = CounterMetricFamily(
            "ekeko_token_fetches",
            "Calls to token endpoints",
            labels=["credential", "grant", "outcome"],
        )
        for name, counts in self._routes.items():
            for (method, status), count in counts.requests.items():
                requests.add_metric([name, method, str(status)], count)
            for code, count in counts.errors.items():
                errors.add_metric([name, code], count)
            bounds = [*(str(float(bound)) for bound in _BUCKETS), "+Inf"]
            cumulative = list(zip(bounds, accumulate(counts.buckets), strict=True))
            durations.add_metric([name], buckets=cumulative, sum_value=counts.seconds)
        for labels, count in self._fetches.items():
            fetches.add_metric(list(labels), count)
        yield from (requests, errors, durations, fetches)


def _present(state: State) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "ekeko_requests_in_flight", "Requests being served", labels=["route"]
    )
    connections = GaugeMetricFamily(
        "ekeko_upstream_connections", "Connections to upstreams", labels=["route", "state"]
    )
    expiry = GaugeMetricFamily(
        "ekeko_token_expiry_timestamp_seconds",
        "When the present token expires",
        labels=["credential"],
    )
    serving: Counter[str] = Counter()
    connected: Counter[tuple[str, str]] = Counter()
    for route in state.route_states():
        serving[route.name] += route.in_flight
        connected.update({(route.name, name): n for name, n in route.connections.items()})
    for name, count in serving.items():
        in_flight.add_metric([name], count)
    for labels, count in connected.items():
        connections.add_metric(list(labels), count)
    for token in state.token_states():
        expiry.add_metric([token.credential], token.expires_at)
    yield from (in_flight, connections, expiry)
