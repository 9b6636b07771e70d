"""Each kind of credential, from a caller without any to a stand-in that verifies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import (
    SANDBOX_ACCESS_KEY,
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_LONG_LIVED_TOKEN,
    Fault,
    StandIns,
)
from tests.support import (
    JSON,
    PAYBILL,
    PAYMENT,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    until,
)

if TYPE_CHECKING:
    from tests.support import Running

LOGINS = ["login", "refresh", "refresh-token"]


def fields_of(stand_in: Any) -> list[tuple[str, str]]:
    """The header fields of the last request that arrived."""
    return [(name.decode(), value.decode()) for name, value in stand_in.journal[-1].headers]


# Eka's tokens.


async def test_a_callers_own_copies_of_what_the_proxy_sets_never_arrive(front: Running) -> None:
    theirs = [
        ("Authorization", "Bearer canary"),
        ("AUTH", "canary"),
        ("Client_Id", "canary"),
        ("client.id", "canary"),
        ("jwt-payload", "canary"),
        ("Jwt_Payload", "canary"),
        ("X-Pt-Id", "patient"),
    ]
    got = await ask(front.eka, "GET", "/dr/v1/patient/42", theirs)
    assert got.status == 200
    passed = fields_of(front.stand_ins.eka)
    assert "canary" not in str(passed)
    assert ("X-Pt-Id", "patient") in passed
    assert ("client-id", SANDBOX_CLIENT_ID) in passed


@pytest.mark.parametrize("named", ["Authorization, auth, client-id", "developer_key, secret-key"])
async def test_connection_cannot_take_away_what_the_proxy_sets(front: Running, named: str) -> None:
    fields = [("Connection", f"close, {named}")]
    assert (await ask(front.eka, "GET", "/dr/v1/patient/42", fields)).status == 200
    assert (await ask(front.eko, "GET", "/ekoapi/v3/x", fields)).status == 200


@pytest.mark.parametrize("last", LOGINS)
@pytest.mark.parametrize("query", ["", "?client_secret=canary"])
async def test_logins_of_vendor_sdks_are_answered_by_the_proxy(
    front: Running, last: str, query: str
) -> None:
    await until(lambda: front.stand_ins.eka.logins)
    arrived = front.stand_ins.eka.arrived
    theirs = [JSON, ("Authorization", "Bearer None")]
    target = f"/connect-auth/v1/account/{last}{query}"
    got = await ask(front.eka, "POST", target, theirs, b'{"client_secret": "canary"}')
    token = got.json()
    assert got.status == 200
    assert isinstance(token["expires_in"], int)
    assert token["refresh_token"]
    assert len(token["access_token"].split(".")) == 3
    assert front.stand_ins.eka.arrived == arrived
    assert not front.stand_ins.eka.tokens._by_access.keys() & {token["access_token"]}
    assert "canary" not in str(front.lines())
    # What the SDK does next, with that token.
    bearer = [("Authorization", f"Bearer {token['access_token']}")]
    assert (await ask(front.eka, "GET", "/dr/v1/patient/42", bearer)).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_a_post_is_a_login(front: Running, method: str) -> None:
    await until(lambda: front.stand_ins.eka.logins)
    arrived = front.stand_ins.eka.arrived
    got = await ask(front.eka, method, "/connect-auth/v1/account/login")
    assert got.status == 404
    assert front.stand_ins.eka.arrived == arrived + 1


async def test_each_workspace_has_a_token_of_its_own(front: Running) -> None:
    for _ in range(2):
        for name in (None, "clinic-a", "clinic-b"):
            fields = [("X-Eka-Workspace", name)] if name else []
            got = await ask(front.eka, "GET", "/echo", fields)
            assert (got.status, got.json()["workspace"]) == (200, name)
    assert front.stand_ins.eka.logins == 3


async def test_one_workspaces_trouble_is_nobody_elses(front: Running) -> None:
    assert (await ask(front.eka, "GET", "/echo")).status == 200
    front.stand_ins.eka.faults.add(Fault("POST /connect-auth", status=500))
    got = await ask(front.eka, "GET", "/echo", [("X-Eka-Workspace", "clinic-a")])
    assert (got.status, got.get("X-Ekeko-Error")) == (503, "credential_unavailable")
    assert int(got.get("Retry-After") or 0) >= 1
    assert (await ask(front.eka, "GET", "/echo")).status == 200


async def test_wrong_credentials_are_told_and_not_tried_again_at_once() -> None:
    wrong = {"credentials": {"eka": {"client_secret": "canary-wrong"}}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, wrong) as front:
        for _ in range(5):
            got = await ask(front.eka, "GET", "/echo")
            assert (got.status, got.get("X-Ekeko-Error")) == (503, "credential_rejected")
            assert got.get("Retry-After") is not None
            assert b"canary" not in got.body
        assert (stand_ins.eka.login_failures, stand_ins.eka.calls) == (1, 0)


async def test_a_login_whose_first_waiter_leaves_serves_the_others(front: Running) -> None:
    fields = [("X-Eka-Workspace", "clinic-a")]
    assert (await ask(front.eka, "GET", "/echo")).status == 200
    front.stand_ins.eka.faults.add(Fault("POST /connect-auth", kind="delay", seconds=0.3))
    first = asyncio.create_task(ask(front.eka, "GET", "/echo", fields))
    await until(lambda: front.route("eka").in_flight)
    others = [asyncio.create_task(ask(front.eka, "GET", "/echo", fields)) for _ in range(5)]
    await until(lambda: front.route("eka").in_flight == 6)
    first.cancel()
    await until(lambda: front.route("eka").in_flight == 5)
    assert {(await each).status for each in others} == {200}
    assert front.stand_ins.eka.logins == 2


# The others.


async def test_a_bearer_token_is_sent_as_it_is_and_a_refusal_of_it_is_final() -> None:
    async with StandIns() as stand_ins:
        bearer: dict[str, Any] = {
            "routes": {"eka": {"credential": "static"}},
            "credentials": {
                "static": {
                    "kind": "bearer",
                    "token": SANDBOX_LONG_LIVED_TOKEN,
                    "origins": [stand_ins.eka_url],
                }
            },
        }
        async with proxy_in_front(stand_ins, bearer) as front:
            theirs = [("Authorization", "Bearer canary"), ("auth", "canary")]
            got = await ask(front.eka, "GET", "/dr/v1/patient/42", theirs)
            assert got.status == 200
            sent = dict(fields_of(stand_ins.eka))
            assert sent["Authorization"] == f"Bearer {SANDBOX_LONG_LIVED_TOKEN}"
            assert sent["auth"] == SANDBOX_LONG_LIVED_TOKEN
            stand_ins.eka.faults.add(Fault("GET /echo", status=401, body="no"))
            arrived = stand_ins.eka.arrived
            got = await ask(front.eka, "GET", "/echo")
            assert (got.status, got.body) == (401, b"no")
            assert stand_ins.eka.arrived == arrived + 1


async def test_without_a_credential_the_callers_own_pass_untouched() -> None:
    own = [
        ("Authorization", "Bearer own"),
        ("auth", "own"),
        ("client-id", "me"),
        ("developer_key", "k"),
        ("X-Eka-Workspace", "w"),
    ]
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        target = "/connect-auth/v1/account/login"
        await ask(proxy.plain, "POST", target, own, b"{}")
        (got,) = upstream.requests
        assert got.target == target
        assert [field for field in got.fields if field in own] == own


async def test_a_401_without_a_credential_is_the_answer() -> None:
    refused = answer(b"no", "WWW-Authenticate: Bearer", status="401 Unauthorized")
    async with ScriptedUpstream([refused]) as upstream, plain_proxy(upstream.url) as proxy:
        got = await ask(proxy.plain, "GET", "/")
        assert (got.status, got.get("WWW-Authenticate")) == (401, "Bearer")
        assert len(upstream.requests) == 1


async def test_a_payment_arrives_signed_and_hashed(front: Running) -> None:
    theirs = [
        JSON,
        ("Developer-Key", "canary"),
        ("SECRET_KEY", "canary"),
        ("Secret-Key-Timestamp", "1"),
        ("Request-Hash", "canary"),
    ]
    got = await ask(front.eko, "POST", PAYBILL, theirs, PAYMENT)
    assert got.status == 200
    (payment,) = front.stand_ins.eko.payments
    assert payment.amount == "50.0"
    assert "canary" not in str(fields_of(front.stand_ins.eko))


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded"])
async def test_eko_gets_a_content_type_where_a_body_has_none(
    front: Running, content_type: str | None
) -> None:
    fields = [("Content-Type", content_type)] if content_type else []
    body = b"a=1" if content_type else b'{"a": 1}'
    assert (await ask(front.eko, "POST", "/ekoapi/v3/x", fields, body)).status == 200
    types = [v for n, v in fields_of(front.stand_ins.eko) if n.lower() == "content-type"]
    assert types == [content_type or "application/json"]


async def test_eko_gets_no_content_type_where_there_is_no_body(front: Running) -> None:
    await ask(front.eko, "GET", "/ekoapi/v3/x")
    assert "Content-Type" not in dict(fields_of(front.stand_ins.eko))


async def test_an_aadhaar_number_goes_into_the_signature_and_no_further(front: Running) -> None:
    body = b'{"aadhar": "sandbox-encrypted-aadhaar", "amount": 0, "user_code": "20810200"}'
    fields = [JSON, ("X-Eko-Aadhaar", "123412341234")]
    got = await ask(front.eko, "POST", "/ekoapi/v2/aeps", fields, body)
    assert got.status == 200
    assert "123412341234" not in str(fields_of(front.stand_ins.eko))
    assert "123412341234" not in str(front.lines())


async def test_the_access_log_holds_no_secret_and_nobodys_number(front: Running) -> None:
    await ask(front.eka, "GET", "/dr/v1/patient/176650465340471?name=canary")
    await ask(front.eko, "GET", "/ekoapi/v3/customer/account/9999999999?pin=canary")
    log = "".join(front.written) + str(front.lines())
    secrets = (SANDBOX_CLIENT_SECRET, SANDBOX_ACCESS_KEY, *front.stand_ins.eka.tokens._by_access)
    for text in (*secrets, "176650465340471", "9999999999", "canary"):
        assert text not in log
    line = front.lines()[0]
    assert set(line) == {
        "ts",
        "request_id",
        "route",
        "method",
        "path",
        "status",
        "code",
        "duration_ms",
        "upstream_ms",
        "bytes_in",
        "bytes_out",
        "caller",
        "identity",
        "attempts",
    }
    assert (line["route"], line["status"], line["caller"]) == ("eka", 200, "127.0.0.1")
