"""Metrics in Prometheus's text format, by prometheus-client: the format's reference.

Loaded when the listeners accept already: it brings an HTTP server of its own, which takes time.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy.admin.metrics import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.admin.metrics import Metrics, State


def text(metrics: Metrics, state: State | None) -> bytes:
    """Write what has happened, and how things stand."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, state))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, metrics: Metrics, state: State | None) -> None:
        self._metrics = metrics
        self._state = state

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
        limits = CounterMetricFamily(
            "ekeko_limit_reached", "Refusals of what callers may not hold", labels=["limit"]
        )
        for limit, count in self._metrics.limits.items():
            limits.add_metric([limit], count)
        for name, counts in self._metrics.routes.items():
            for (method, status), count in counts.requests.items():
                requests.add_metric([name, method, str(status)], count)
            for code, count in counts.errors.items():
                errors.add_metric([name, code], count)
            bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
            cumulative = list(zip(bounds, accumulate(counts.buckets), strict=True))
            durations.add_metric([name], buckets=cumulative, sum_value=counts.seconds)
        for labels, count in self._metrics.fetches.items():
            fetches.add_metric(list(labels), count)
        yield from (requests, errors, durations, fetches, limits)


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
