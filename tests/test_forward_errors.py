"""The proxy's own answers: each code with its status, and what had been sent upstream by then."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import Fault, StandIns
from tests.support import (
    JSON,
    PAYBILL,
    Message,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    until,
)

if TYPE_CHECKING:
    from proxy.credentials.base import Outgoing
    from tests.support import Running, UpstreamWire

PAYMENT = json.dumps(
    {
        "utility_acc_no": "151627591",
        "amount": 50.0,
        "user_code": "20810200",
        "client_ref_id": "ref-1",
    }
).encode()


def judge(got: Message, code: str, status: int, route: str) -> dict[str, Any]:
    """Check a problem answer in every field that is always the same; return it."""
    assert (got.status, got.get("X-Ekeko-Error")) == (status, code)
    assert got.get("Content-Type") == "application/problem+json"
    problem: dict[str, Any] = got.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "route", "request_id"}
    assert (problem["code"], problem["status"], problem["route"]) == (code, status, route)
    assert problem["request_id"] == got.get("X-Request-Id")
    assert problem["title"]
    assert problem["detail"]
    return problem


# 4xx: nothing was sent upstream.

REFUSED = [
    ("GET", "//x", [], b"", "bad_request", 400),
    ("GET", "/a/../b", [], b"", "bad_request", 400),
    ("GET", "/x", [("Host", "other.example")], b"", "bad_request", 400),
    ("GET", "/x", [("Origin", "https://evil.example")], b"", "origin_not_allowed", 403),
    ("GET", "/x", [("Sec-Fetch-Site", "cross-site")], b"", "origin_not_allowed", 403),
    ("DELETE", "/x", [], b"", "not_allowed", 403),
    ("POST", "/x", [("X-Eka-Workspace", "nobody")], b"", "unknown_workspace", 404),
    ("POST", "/x", [], b"x" * 1001, "body_too_large", 413),
    ("GET", "/x", [("X-Big", "b" * 70_000)], b"", "header_too_large", 431),
    ("GET", "/x", [(f"X-{n}", "") for n in range(120)], b"", "header_too_large", 431),
    ("GET", "/" + "x" * 20_000, [], b"", "header_too_large", 431),
]


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused_never_reaches_the_upstream(
    case: tuple[str, str, list[tuple[str, str]], bytes, str, int],
) -> None:
    method, target, fields, body, code, status = case
    route = {"routes": {"eka": {"allow": ["GET,POST /**"], "max_body": "1000"}}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, route) as front:
        await until(lambda: stand_ins.eka.logins)
        arrived = stand_ins.eka.arrived
        got = await ask(front.eka, method, target, fields, body)
        judge(got, code, status, "" if code in ("header_too_large", "bad_request") else "eka")
        assert stand_ins.eka.arrived == arrived
        assert (front.lines()[-1]["code"], front.lines()[-1]["attempts"]) == (code, 0)


async def test_a_foreign_host_is_refused_with_421(front: Running) -> None:
    await until(lambda: front.stand_ins.eka.logins)
    arrived = front.stand_ins.eka.arrived
    for host in (b"evil.com", b"localhost.evil.com", b"", b"127.0.0.1@evil.com", b"evil.com:80"):
        async with raw_client(front.eka) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            judge(await client.answer(), "host_not_allowed", 421, "eka")
    async with raw_client(front.eka) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        judge(await client.answer(), "host_not_allowed", 421, "eka")
    assert front.stand_ins.eka.arrived == arrived


@pytest.mark.parametrize("host", ["LOCALHOST:8180", "localhost.", "127.0.0.1:1", "[::1]:8180"])
async def test_loopback_names_are_ours_however_they_are_spelled(host: str) -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        assert (await client.answer()).status == 200


async def test_a_path_that_no_route_serves_is_404() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, {"routes": {"plain": {"prefix": "/p"}}}) as proxy,
    ):
        judge(await ask(proxy.plain, "GET", "/px"), "no_route", 404, "")
        assert upstream.connections == []


async def test_a_missing_signing_input_is_422_and_nothing_is_sent(front: Running) -> None:
    eko = {"credentials": {"eko": {"user_code": None}}}
    async with proxy_in_front(front.stand_ins, eko) as front_without:
        body = b'{"utility_acc_no": "1", "amount": 5}'
        got = await ask(front_without.eko, "POST", PAYBILL, [JSON], body)
        problem = judge(got, "signing_input_missing", 422, "eko")
        assert "user_code" in problem["detail"]
        assert front.stand_ins.eko.arrived == 0


async def test_a_chunked_body_past_its_limit_never_arrives_whole() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.rest()
        wire.lost.set()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, {"routes": {"plain": {"max_body": "10"}}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]))
        await client.send(b"6\r\nfirst \r\n")
        await until(lambda: upstream.connections and upstream.connections[0].received)
        await client.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert await client.rest() == b""  # a 413 would claim that nothing was sent
        await until(upstream.connections[0].lost.is_set)
        assert not upstream.connections[0].received.endswith(b"0\r\n\r\n")


async def test_a_small_chunked_body_past_its_limit_is_413_before_anything_is_sent() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, {"routes": {"plain": {"max_body": "10"}}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        whole = b"b\r\nhello world\r\n0\r\n\r\n"
        await client.send(request("POST", "/", [("Transfer-Encoding", "chunked")]) + whole)
        judge(await client.answer(), "body_too_large", 413, "plain")
        assert upstream.connections == []


async def test_a_body_to_be_signed_has_to_fit_in_memory(front: Running) -> None:
    body = b" " * (1024 * 1024 + 1)
    got = await ask(front.eko, "POST", PAYBILL, [JSON], body)
    judge(got, "body_too_large", 413, "eko")
    assert front.stand_ins.eko.arrived == 0


# 5xx: what upstream did, or did not.


async def closing(wire: UpstreamWire) -> None:
    await wire.request()


async def resetting(wire: UpstreamWire) -> None:
    await wire.request()
    wire.reset()


async def silent(wire: UpstreamWire) -> None:
    await wire.request()
    await wire.rest()


async def half_a_head(wire: UpstreamWire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def rambling(wire: UpstreamWire) -> None:
    await wire.request()
    await wire.send(b"220 smtp.example ESMTP\r\n")
    await wire.rest()


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (closing, "upstream_closed"),
        (resetting, "upstream_closed"),
        (half_a_head, "upstream_closed"),
        (rambling, "upstream_protocol_error"),
    ],
)
async def test_an_upstream_that_fails_is_a_502_and_is_asked_once(play: Any, code: str) -> None:
    async with ScriptedUpstream(play) as upstream, plain_proxy(upstream.url) as proxy:
        async with raw_client(proxy.plain) as client:
            judge(await client.ask("POST", "/", body=b"{}"), code, 502, "plain")
            judge(await client.ask("GET", "/"), code, 502, "plain")  # the connection is kept
        assert len(upstream.requests) == 2


async def test_an_upstream_that_does_not_listen_is_unreachable() -> None:
    async with ScriptedUpstream([]) as upstream:
        gone = upstream.url
    async with plain_proxy(gone + "/secret-base") as proxy:
        problem = judge(await ask(proxy.plain, "GET", "/"), "upstream_unreachable", 502, "plain")
        assert gone in problem["detail"]
        assert "secret-base" not in problem["detail"]


async def test_an_upstream_that_does_not_answer_times_out() -> None:
    async with (
        ScriptedUpstream(silent) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.requests)
        proxy.let_deadlines_pass()
        judge(await client.answer(), "upstream_timeout", 504, "plain")


async def test_an_upstream_that_stalls_within_its_answer_breaks_the_callers_connection() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await client.rest_of(b"half")
        proxy.let_deadlines_pass()
        assert await client.rest() == b""
        assert (await wait_for_line(proxy))["code"] == "upstream_timeout"


async def test_an_upstream_that_takes_no_more_of_an_upload_times_out() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.head()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        await wire.lost.wait()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Content-Length", str(64 << 20))]))
        client.writer.write(b"x" * (32 << 20))
        await until(lambda: proxy.route("plain").pool.counts()["active"])
        (connection,) = proxy.route("plain").pool._all
        await until(lambda: connection._paused_writing)
        await until(lambda: connection.is_late(1e12))
        proxy.let_deadlines_pass()
        judge(await client.answer(), "upstream_timeout", 504, "plain")


async def test_a_total_timeout_counts_however_lively_the_upstream_is() -> None:
    total = {"routes": {"plain": {"timeout": {"total": 600}}}}

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, total) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await client.rest_of(b"x\r\n")
        (connection,) = proxy.route("plain").pool._all
        connection.deadline = math.inf  # as if something came all the time
        proxy.let_deadlines_pass()
        assert await client.rest() == b""


async def wait_for_line(proxy: Any) -> dict[str, Any]:
    await until(proxy.lines)
    line: dict[str, Any] = proxy.lines()[-1]
    return line


# Payments.


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(kind="close_before_head", after_processing=True), 502),
        (Fault(kind="reset_before_head", after_processing=True), 502),
        (Fault(kind="garbage", after_processing=True), 502),
        (Fault(kind="close_before_head", read_body=False), 502),
    ],
)
async def test_a_payment_of_unknown_outcome_is_said_to_be_one_and_never_sent_again(
    front: Running, fault: Fault, status: int
) -> None:
    eko = front.stand_ins.eko
    await ask(front.eko, "GET", "/ekoapi/v3/x")  # a connection to be reused, or not
    eko.faults.add(fault)
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    problem = judge(got, "outcome_unknown", status, "eko")
    assert "client_ref_id" in problem["detail"]
    assert len(eko.payments) == (1 if fault.after_processing else 0)
    assert eko.arrived == 2
    assert front.lines()[-1]["attempts"] == 1


async def test_a_payment_that_times_out_has_an_unknown_outcome(front: Running) -> None:
    front.stand_ins.eko.faults.add(Fault(kind="hang", after_processing=True))
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        await until(lambda: front.stand_ins.eko.payments)
        front.let_deadlines_pass()
        problem = judge(await client.answer(), "outcome_unknown", 504, "eko")
        assert "client_ref_id" in problem["detail"]
    assert len(front.stand_ins.eko.payments) == 1


async def test_a_payment_that_was_never_sent_has_a_known_outcome() -> None:
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as front:
        await stand_ins._stack.aclose()
        got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
        problem = judge(got, "upstream_unreachable", 502, "eko")
        assert "Nothing was sent" in problem["detail"]


async def test_a_payment_broken_off_within_its_answer_breaks_the_callers_connection(
    front: Running,
) -> None:
    front.stand_ins.eko.faults.add(Fault(kind="short_body", status=200, after_processing=True))
    async with raw_client(front.eko) as client:
        await client.send(request("POST", PAYBILL, [JSON], PAYMENT))
        head = await client.head()
        assert len(await client.rest()) < int(head.get("Content-Length") or 0)
    assert len(front.stand_ins.eko.payments) == 1


# The proxy's own fault.


class SurprisingError(Exception):
    pass


async def test_an_unexpected_error_is_a_500_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:

        async def fail(outgoing: Outgoing) -> Any:
            del outgoing
            raise SurprisingError("canary-text")

        monkeypatch.setattr(proxy.route("plain").credential, "authorise", fail)
        with caplog.at_level(logging.CRITICAL):
            got = await ask(proxy.plain, "GET", "/")
        judge(got, "internal_error", 500, "plain")
        assert b"canary-text" not in got.body
        assert b"Traceback" not in got.body
        monkeypatch.undo()
        assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_an_error_answer_to_head_has_no_body() -> None:
    async with (
        ScriptedUpstream(closing) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for _ in range(2):
            got = await client.ask("HEAD", "/")
            assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_closed")
