"""Metrics: the contract's names and labels, counted right."""

from __future__ import annotations

import json
import time
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from proxy.admin.metrics import Metrics
from proxy.observe import Event
from proxy.sandbox import Fault
from tests.support import ask, until

if TYPE_CHECKING:
    from tests.support import Running

CONTRACT = {
    "ekeko_requests": {"route", "method", "status"},
    "ekeko_request_duration_seconds": {"route"},
    "ekeko_requests_in_flight": {"route"},
    "ekeko_proxy_errors": {"route", "code"},
    "ekeko_token_expiry_timestamp_seconds": {"credential"},
    "ekeko_token_fetches": {"credential", "grant", "outcome"},
    "ekeko_upstream_connections": {"route", "state"},
    "ekeko_limit_reached": {"limit"},
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(front: Running) -> Samples:
    text = (await ask(front.admin, "GET", "/metrics")).body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, metric: str, **labels: str) -> float:
    return samples[metric, frozenset(labels.items())]


async def test_names_and_labels_are_the_contracts(front: Running) -> None:
    await ask(front.eka, "GET", "/x")
    await ask(front.eka, "GET", "/x", [("X-Eka-Workspace", "nobody")])
    await ask(front.eka, "GET", "/x", [(f"X-{number}", "a") for number in range(101)])
    got = await ask(front.admin, "GET", "/metrics")
    assert (got.get("Content-Type") or "").startswith("text/plain; version=0.0.4")
    families = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in text_string_to_metric_families(got.body.decode())
    }
    assert families == CONTRACT


async def test_requests_are_counted_by_route_method_and_status(front: Running) -> None:
    for _ in range(3):
        await ask(front.eka, "GET", "/x")
    await ask(front.eka, "POST", "/sandbox/status/404", body=b"{}")
    await ask(front.eko, "PROPFIND", "/ekoapi/v3/x")
    samples = await scrape(front)
    assert of(samples, "ekeko_requests_total", route="eka", method="GET", status="200") == 3
    assert of(samples, "ekeko_requests_total", route="eka", method="POST", status="404") == 1
    others = [dict(labels) for name, labels in samples if name == "ekeko_requests_total"]
    assert {"OTHER"} == {each["method"] for each in others if each["route"] == "eko"}
    assert of(samples, "ekeko_request_duration_seconds_count", route="eka") == 4
    assert of(samples, "ekeko_request_duration_seconds_bucket", route="eka", le="+Inf") == 4
    assert of(samples, "ekeko_request_duration_seconds_sum", route="eka") > 0
    assert of(samples, "ekeko_requests_in_flight", route="eka") == 0
    assert of(samples, "ekeko_upstream_connections", route="eka", state="idle") >= 1


async def test_the_proxys_own_errors_are_counted_by_code(front: Running) -> None:
    await ask(front.eka, "GET", "/x", [("X-Eka-Workspace", "nobody")])
    front.stand_ins.eka.faults.add(Fault("GET /x", kind="garbage"))
    await ask(front.eka, "GET", "/x")
    await ask(front.eka, "GET", "/sandbox/status/500")
    samples = await scrape(front)
    errors = {
        dict(labels)["code"]: value
        for (name, labels), value in samples.items()
        if name == "ekeko_proxy_errors_total"
    }
    assert errors == {"unknown_workspace": 1, "upstream_protocol_error": 1}


async def test_tokens_are_counted_and_their_expiry_told(front: Running) -> None:
    await ask(front.eka, "GET", "/x")
    front.stand_ins.eka.revoke_all()
    await ask(front.eka, "GET", "/x")
    front.stand_ins.eka.revoke_all(sessions=True)
    front.stand_ins.eka.faults.add(Fault("POST /connect-auth/v1/account/login", status=503))
    await ask(front.eka, "GET", "/x")
    await until(front.app.troubles)
    samples = await scrape(front)
    fetches = {
        (dict(labels)["grant"], dict(labels)["outcome"]): value
        for (name, labels), value in samples.items()
        if name == "ekeko_token_fetches_total"
    }
    assert fetches == {("login", "ok"): 2, ("login", "failed"): 1}


async def test_the_expiry_is_a_time_of_day(front: Running) -> None:
    await ask(front.eka, "GET", "/x")
    expiry = of(await scrape(front), "ekeko_token_expiry_timestamp_seconds", credential="eka")
    assert time.time() + 1600 < expiry <= time.time() + 1800


async def test_no_path_or_number_becomes_a_label(front: Running) -> None:
    for number in range(20):
        await ask(front.eka, "GET", f"/dr/v1/patient/17665046534{number:04}")
        await ask(front.eka, f"X{number}", "/x")
    text = (await ask(front.admin, "GET", "/metrics")).body.decode()
    assert "17665046534" not in text
    assert 'method="X' not in text


def test_what_several_processes_counted_adds_up_to_what_one_would_have() -> None:
    """Figures pass between processes as JSON."""
    one, parts, total = Metrics(), [Metrics() for _ in range(3)], Metrics()
    kinds = product(("eka", "eko"), ("GET", "POST", "TRACE"), (200, 503), (0.0004, 0.3, 100.0))
    for number, (route, method, status, duration) in enumerate(kinds):
        event = Event(0, method, "")
        event.route, event.status, event.duration = route, status, duration
        event.code = "overloaded" if status == 503 else None
        outcome = "ok" if event.code is None else "failed"
        for metrics in (one, parts[number % 3]):
            metrics.exchanged(event)
            metrics.fetched(route, "login", outcome)
            metrics.limited(method)
    for metrics in (Metrics(), *parts):
        total.add(json.loads(json.dumps(metrics.figures())))

    def samples(metrics: Metrics) -> list[str]:
        return sorted(line for line in metrics.text().decode().splitlines() if "_sum" not in line)

    assert samples(total) == samples(one)
    assert total.totals() == one.totals()
    assert 'duration_seconds_sum{route="eka"}' in total.text().decode()
