"""Nothing is sent twice, but for the few cases in which that is known to do no harm."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import SANDBOX_ACCESS_KEY, Fault, StandIns
from tests.support import (
    JSON,
    PAYBILL,
    PAYMENT,
    Broken,
    ManualClock,
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
    from proxy.sandbox import EkoStandIn
    from tests.support import Message, Running, UpstreamWire

UNAUTHORIZED = "401 Unauthorized"


# A kept-alive connection that closes as the next request is on its way.


class Stale:
    """Answers one request on its first connection, and closes it when the second has come."""

    def __init__(self) -> None:
        self.second = b""

    async def first(self, wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"first"))
        try:
            await wire.request()
        except Broken:
            return

    def upstream(self) -> ScriptedUpstream:
        return ScriptedUpstream(self.first, [answer(b"second")] * 5)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_is_sent_again_when_a_kept_connection_had_closed(method: str) -> None:
    async with Stale().upstream() as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "GET", "/")
        got = await ask(proxy.plain, method, "/x")
        assert got.status == 200
        assert len(upstream.connections) == 2
        assert proxy.lines()[-1]["attempts"] == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_an_unsafe_request_is_never_sent_again(method: str) -> None:
    async with Stale().upstream() as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "GET", "/")
        got = await ask(proxy.plain, method, "/x", body=b"{}")
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_closed")
        assert [each.method for each in upstream.requests] == ["GET", method]
        assert len(upstream.connections) == 1


async def test_a_safe_request_is_not_sent_again_once_a_byte_of_an_answer_came() -> None:
    async def first(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"first"))
        await wire.request()
        await wire.send(b"H")

    async with ScriptedUpstream(first, [answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "GET", "/")
        got = await ask(proxy.plain, "GET", "/")
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_closed")
        assert len(upstream.connections) == 1


async def test_a_safe_request_is_not_sent_again_after_a_timeout() -> None:
    async def first(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(answer(b"first"))
        await wire.request()
        await wire.rest()

    async with (
        ScriptedUpstream(first, [answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.ask("GET", "/")
        await client.send(request("GET", "/"))
        await until(lambda: len(upstream.requests) == 2)
        proxy.let_deadlines_pass()
        assert (await client.answer()).status == 504
        assert len(upstream.connections) == 1


async def test_a_new_connection_that_closes_is_not_tried_again() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()

    async with ScriptedUpstream(play) as upstream, plain_proxy(upstream.url) as proxy:
        assert (await ask(proxy.plain, "GET", "/")).status == 502
        assert len(upstream.requests) == 1


async def test_a_payment_is_never_sent_again_on_a_kept_connection_that_closed(
    front: Running,
) -> None:
    eko = front.stand_ins.eko
    await ask(front.eko, "GET", "/ekoapi/v3/x")
    eko.faults.add(Fault("POST /", kind="close_before_head", after_processing=True))
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    assert (got.status, got.get("X-Ekeko-Error")) == (502, "outcome_unknown")
    assert len(eko.payments) == 1


async def test_a_financial_get_is_not_sent_again_either() -> None:
    financial = {"credentials": {"eko": {"financial": ["GET /**/pay"]}}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, financial) as front:
        await ask(front.eko, "GET", "/ekoapi/v3/x")
        stand_ins.eko.faults.add(Fault(kind="close_before_head"))
        got = await ask(front.eko, "GET", "/ekoapi/v3/pay")
        assert (got.status, got.get("X-Ekeko-Error")) == (502, "outcome_unknown")
        assert stand_ins.eko.arrived == 2


# A token that Eka refuses.


async def warm(front: Running) -> None:
    """Make sure that a token is held, and a connection open."""
    assert (await ask(front.eka, "GET", "/x")).status == 200


def arrived(front: Running, method: str = "POST") -> list[tuple[str, int]]:
    """What came of the test's own requests: digest and length of each body."""
    return [
        (each.body_sha256, each.body_length)
        for each in front.stand_ins.eka.journal
        if each.target == "/echo" and each.method == method
    ]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_refused_token_is_renewed_and_the_same_body_sent_again(
    front: Running, *, chunked: bool
) -> None:
    body = bytes(range(256)) * 100
    await warm(front)
    front.stand_ins.eka.revoke_all()
    async with raw_client(front.eka) as client:
        if chunked:
            await client.send(request("POST", "/echo", [("Transfer-Encoding", "chunked")]))
            await client.send(b"%x\r\n%b\r\n" % (len(body), body))
            await client.send(b"0\r\n\r\n")
            got = await client.answer()
        else:
            got = await client.ask("POST", "/echo", body=body)
    assert got.status == 200
    digest = hashlib.sha256(body).hexdigest()
    assert got.json()["sha256"] == digest
    assert arrived(front) == [(digest, len(body))] * 2
    assert front.lines()[-1]["attempts"] == 2


async def test_a_body_of_more_than_a_mebibyte_is_not_sent_again(front: Running) -> None:
    await warm(front)
    front.stand_ins.eka.revoke_all()
    got = await ask(front.eka, "POST", "/echo", body=b"x" * (1024 * 1024 + 1))
    assert got.status == 401
    assert got.get("X-Ekeko-Error") is None
    assert got.json()["code"] == 401
    assert len(arrived(front)) == 1
    assert (await ask(front.eka, "GET", "/x")).status == 200  # the next one has a new token


async def test_a_body_of_just_a_mebibyte_is_sent_again(front: Running) -> None:
    await warm(front)
    front.stand_ins.eka.revoke_all()
    assert (await ask(front.eka, "POST", "/echo", body=b"x" * 1024 * 1024)).status == 200
    assert len(arrived(front)) == 2


async def test_a_second_refusal_is_the_answer(front: Running) -> None:
    await warm(front)
    refusal = Fault("GET /echo", status=401, body='{"error": "again"}', times=None)
    front.stand_ins.eka.faults.add(refusal)
    logins = front.stand_ins.eka.logins + front.stand_ins.eka.refreshes_v2
    got = await ask(front.eka, "GET", "/echo")
    assert (got.status, got.body) == (401, b'{"error": "again"}')
    assert len(arrived(front, "GET")) == 2
    assert front.stand_ins.eka.logins + front.stand_ins.eka.refreshes_v2 == logins + 1


async def test_the_first_refusal_is_the_answer_when_no_other_token_is_to_be_had(
    front: Running,
) -> None:
    await warm(front)
    front.stand_ins.eka.revoke_all(sessions=True)
    front.stand_ins.eka.faults.add(Fault("POST /connect-auth", status=500, times=None))
    got = await ask(front.eka, "POST", "/echo", body=b"{}")
    assert (got.status, got.get("X-Ekeko-Error")) == (401, None)
    assert got.json() == {"code": 401, "error": "the access token was revoked"}
    assert len(arrived(front)) == 1


async def test_a_refusal_of_an_old_token_does_not_drop_a_newer_one(front: Running) -> None:
    """Two requests leave with one token; the slower of them is refused after it was replaced."""
    await warm(front)
    eka = front.stand_ins.eka
    eka.faults.add(Fault("GET /echo", kind="delay", seconds=0.05))
    async with raw_client(front.eka) as slow:
        await slow.send(request("GET", "/echo"))
        await until(lambda: arrived(front, "GET"))
        eka.revoke_all()
        assert (await ask(front.eka, "GET", "/x")).status == 200
        fetched = eka.logins + eka.refreshes_v2
        assert (await slow.answer()).status == 200
    assert eka.logins + eka.refreshes_v2 == fetched == 2


@pytest.mark.parametrize("size", [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 5_000_000])
async def test_a_refusal_of_any_size_arrives_whole(front: Running, size: int) -> None:
    await warm(front)
    body = "".join(f"{n:07}\n" for n in range(size // 8 + 1))[:size]
    front.stand_ins.eka.faults.add(Fault("GET /echo", status=401, body=body, times=None))
    got = await ask(front.eka, "GET", "/echo")
    assert got.status == 401
    assert got.body.decode() == body
    assert (await ask(front.eka, "GET", "/x")).status == 200


async def test_a_refusal_broken_off_is_not_taken_for_a_whole_one(front: Running) -> None:
    await warm(front)
    front.stand_ins.eka.faults.add(Fault("GET /echo", kind="short_body", status=401))
    got = await ask(front.eka, "GET", "/echo")
    assert (got.status, got.get("X-Ekeko-Error")) == (502, "upstream_closed")


async def test_other_refusals_are_no_reason_to_send_again(front: Running) -> None:
    await warm(front)
    for status in (400, 403, 404, 429, 491, 500, 503):
        front.stand_ins.eka.faults.add(Fault("POST /echo", status=status))
        assert (await ask(front.eka, "POST", "/echo", body=b"{}")).status == status
    assert len(arrived(front)) == 7
    assert front.stand_ins.eka.logins == 1


async def test_500_callers_at_a_tokens_expiry_cause_one_login() -> None:
    clock = ManualClock()
    async with (
        StandIns(clock=lambda: clock.wall_ms() / 1000) as stand_ins,
        proxy_in_front(stand_ins, clock=clock) as front,
    ):
        await warm(front)
        clock.suspend(1801)
        before = stand_ins.eka.logins + stand_ins.eka.refreshes_v2
        statuses = [
            got.status
            for got in await asyncio.gather(*(ask(front.eka, "GET", "/x") for _ in range(500)))
        ]
        assert statuses == [200] * 500
        assert stand_ins.eka.logins + stand_ins.eka.refreshes_v2 == before + 1


async def test_500_callers_with_a_revoked_token_cause_one_login(front: Running) -> None:
    await warm(front)
    front.stand_ins.eka.revoke_all()
    answers = await asyncio.gather(*(ask(front.eka, "GET", "/x") for _ in range(500)))
    assert {got.status for got in answers} == {200}
    assert front.stand_ins.eka.logins + front.stand_ins.eka.refreshes_v2 == 2


# A signature that Eko refuses at its door.


def stamps(eko: EkoStandIn) -> list[str]:
    return [
        value.decode()
        for each in eko.journal
        for name, value in each.headers
        if name == b"secret-key-timestamp"
    ]


def refusal(number: object) -> str:
    return json.dumps({"status": number, "message": "no"})


@pytest.mark.parametrize("number", [2483, 2484, 2485, 2486, 2487])
async def test_a_call_refused_at_ekos_door_is_signed_afresh_once(
    front: Running, number: int
) -> None:
    eko = front.stand_ins.eko
    eko.faults.add(Fault(status=401, body=refusal(number)))
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    assert got.status == 200
    assert len(eko.payments) == 1
    assert len(set(stamps(eko))) == 2
    bodies = {(each.body_sha256, each.body_length) for each in eko.journal}
    assert bodies == {(hashlib.sha256(PAYMENT).hexdigest(), len(PAYMENT))}


async def test_a_second_refusal_at_ekos_door_is_the_answer(front: Running) -> None:
    eko = front.stand_ins.eko
    eko.faults.add(Fault(status=401, body=refusal(2485), times=None))
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    assert (got.status, got.json()["status"]) == (401, 2485)
    assert eko.arrived == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, body=refusal(1)),
        Fault(status=401, body=refusal("2485")),
        Fault(status=401, body="not JSON"),
        Fault(status=401, body=f"[{refusal(2485)}]"),
        Fault(status=403, body=refusal(2485)),
        Fault(status=500, body=refusal(2485)),
        Fault(status=429, body="{}"),
    ],
)
async def test_any_other_refusal_of_ekos_is_the_answer(front: Running, fault: Fault) -> None:
    front.stand_ins.eko.faults.add(fault)
    got: Message = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    assert (got.status, got.body.decode()) == (fault.status, fault.body)
    assert got.get("X-Ekeko-Error") is None
    assert front.stand_ins.eko.arrived == 1


async def test_the_resent_payments_unknown_outcome_is_told(front: Running) -> None:
    """Refused at the door first, then lost: the second may have been carried out."""
    eko = front.stand_ins.eko
    eko.faults.add(Fault(status=401, body=refusal(2485)))
    eko.faults.add(Fault(kind="reset_before_head", after_processing=True))
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    assert (got.status, got.get("X-Ekeko-Error")) == (502, "outcome_unknown")
    assert len(eko.payments) == 1


async def test_no_stamp_is_used_twice_by_many_callers_at_once(front: Running) -> None:
    eko: Any = front.stand_ins.eko
    answers = await asyncio.gather(
        *(ask(front.eko, "GET", f"/ekoapi/v3/x/{n}") for n in range(300))
    )
    assert {got.status for got in answers} == {200}
    assert len(set(stamps(eko))) == 300
    assert SANDBOX_ACCESS_KEY not in str(eko.journal)
