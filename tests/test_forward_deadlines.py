"""Time limits on what a caller holds: a stalled upload, an answer nobody reads, the whole exchange.

Time is moved by `let_deadlines_pass`: an hour, as the sweep sees it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from proxy.sandbox import Fault, StandIns
from tests.support import (
    PAYBILL,
    ScriptedUpstream,
    plain_proxy,
    proxy_in_front,
    raw_client,
    request,
    until,
)

if TYPE_CHECKING:
    from tests.support import Proxy, Running, UpstreamWire


async def take_everything(wire: UpstreamWire) -> None:
    await wire.head()
    await wire.rest()


def is_free(proxy: Proxy | Running, route: str) -> bool:
    served = proxy.app._current.routes[route]
    return not served.in_flight and not served.pool.counts()["active"]


def is_waited_for(proxy: Proxy | Running, route: str) -> bool:
    """Whether the proxy waits for more of a caller's body, or for it to take more."""
    exchanges: set[Any] = proxy.app._current.routes[route].exchanges
    return any(
        min(each.caller.waiting_since, each._body.waiting_since if each._body else math.inf)
        < math.inf
        for each in exchanges
    )


async def test_an_upload_that_stalls_is_broken_off_on_both_sides() -> None:
    async with (
        ScriptedUpstream(take_everything) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Content-Length", "10")]))
        await client.send(b"half")
        await until(lambda: upstream.connections)
        await until(lambda: proxy.route("plain").pool.counts()["active"])
        await until(lambda: is_waited_for(proxy, "plain"))
        proxy.let_deadlines_pass()
        assert await client.rest() == b""  # a 4xx would deny that something was sent
        await until(lambda: is_free(proxy, "plain"))
        assert [line["code"] for line in proxy.lines()] == ["request_timeout"]
        assert dict(proxy.app._metrics.limits) == {"timeout.idle": 1}


async def test_a_body_to_sign_that_stalls_is_refused_and_nothing_was_sent(front: Running) -> None:
    async with raw_client(front.eko) as client:
        head = [("Content-Type", "application/json"), ("Content-Length", "99")]
        await client.send(request("POST", PAYBILL, head))
        await client.send(b'{"amount": ')
        await until(lambda: front.app._current.routes["eko"].in_flight)
        await until(lambda: front.app._budget.kept and is_waited_for(front, "eko"))
        front.let_deadlines_pass()
        got = await client.answer()
        assert (got.status, got.get("X-Ekeko-Error")) == (408, "request_timeout")
    assert front.stand_ins.eko.arrived == 0
    assert front.app._budget.kept == 0


async def test_a_payment_whose_upload_stalls_has_an_unknown_outcome(front: Running) -> None:
    body = json.dumps({"amount": "1", "client_ref_id": "r"}).encode()
    async with raw_client(front.eko) as client:
        head = [("Content-Type", "application/json"), ("Content-Length", str(len(body) + 1))]
        await client.send(request("POST", "/ekoapi/v3/customer/payment/dmt-fino", head))
        await client.send(body)
        await until(lambda: front.app._current.routes["eko"].pool.counts()["active"])
        await until(lambda: is_waited_for(front, "eko"))
        front.let_deadlines_pass()
        got = await client.answer()
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "outcome_unknown")
    assert front.stand_ins.eko.payments == []


async def test_a_caller_that_reads_nothing_is_let_go() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        wire.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        wire.writer.write(b"x" * (64 << 20))
        await wire.lost.wait()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        await client.send(request("GET", "/"))
        await until(lambda: is_waited_for(proxy, "plain"))
        proxy.let_deadlines_pass()
        proxy.let_deadlines_pass()
        await until(lambda: is_free(proxy, "plain"))
        assert dict(proxy.app._metrics.limits) == {"timeout.idle": 1}


async def test_the_total_counts_the_login_too() -> None:
    total = {"routes": {"eka": {"timeout": {"total": 600}}}}
    async with StandIns() as stand_ins:
        stand_ins.eka.faults.add(Fault(match="POST /connect-auth", kind="hang", times=None))
        async with proxy_in_front(stand_ins, total) as front, raw_client(front.eka) as client:
            await client.send(request("GET", "/x"))
            await until(lambda: front.app._current.routes["eka"].in_flight)
            front.let_deadlines_pass()
            got = await client.answer()
            assert (got.status, got.get("X-Ekeko-Error")) == (504, "upstream_timeout")
            await until(lambda: is_free(front, "eka"))
