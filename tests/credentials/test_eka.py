"""Eka's credential: a token for each workspace, renewed, replaced, and never the vendor's own."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from proxy.addresses import parse_origin
from proxy.credentials.eka import EkaSettings, EkaTokens
from proxy.errors import ProxyError
from proxy.sandbox import (
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_SHARING_KEYS,
    EkaStandIn,
    Fault,
    StandIns,
)
from tests.credentials.support import Fetches, lines_of, outgoing
from tests.support import ManualClock, settle

if TYPE_CHECKING:
    from proxy.credentials import Tools
    from proxy.credentials.base import Outgoing
    from proxy.credentials.login import LoginClient

WORKSPACES = {name: {"sharing_key": key} for name, key in SANDBOX_SHARING_KEYS.items()}


def eka_settings(url: str = "https://api.eka.care", **changes: Any) -> EkaSettings:
    raw = {
        "kind": "eka",
        "client_id": SANDBOX_CLIENT_ID,
        "client_secret": SANDBOX_CLIENT_SECRET,
        "login_url": url,
        "workspaces": WORKSPACES,
    }
    return EkaSettings.model_validate(raw | changes)


@pytest.fixture
def credential(stand_ins: StandIns, login_client: LoginClient, tools: Tools) -> EkaTokens:
    return EkaTokens("eka", eka_settings(stand_ins.eka_url), client=login_client, tools=tools)


def request_for(workspace: str = "") -> Outgoing:
    if not workspace:
        return outgoing(method="GET")
    return outgoing(method="GET", x_eka_workspace=workspace.encode())


async def test_a_request_gets_the_clients_own_token(
    credential: EkaTokens, vendor: EkaStandIn
) -> None:
    lines = lines_of(await credential.authorise(request_for()))
    (grant,) = vendor.tokens.live()
    assert grant.workspace is None
    assert lines == {
        "Authorization": f"Bearer {grant.access}",
        "auth": grant.access,
        "client-id": SANDBOX_CLIENT_ID,
    }


async def test_each_workspace_has_one_token_of_its_own(
    credential: EkaTokens, vendor: EkaStandIn
) -> None:
    names = ["", "clinic-a", "clinic-b"] * 10
    found = await asyncio.gather(*(credential.authorise(request_for(name)) for name in names))
    assert len({each.lines for each in found}) == 3
    assert vendor.logins == 3
    wanted = {grant.access: grant.workspace or "" for grant in vendor.tokens.live()}
    assert [wanted[lines_of(each)["auth"]] for each in found] == names


@pytest.mark.parametrize("name", ["clinic-c", "Clinic-A", "\xff", "clinic-a, clinic-b"])
async def test_an_unknown_workspace_is_refused_before_anything_is_sent(
    credential: EkaTokens, vendor: EkaStandIn, name: str
) -> None:
    with pytest.raises(ProxyError) as caught:
        await credential.authorise(outgoing(x_eka_workspace=name.encode("latin-1")))
    assert (caught.value.code, caught.value.status) == ("unknown_workspace", 404)
    assert name not in caught.value.detail
    assert vendor.arrived == 0


async def test_a_refused_token_is_replaced_once_for_all_who_had_it(
    credential: EkaTokens, vendor: EkaStandIn
) -> None:
    dead = await credential.authorise(request_for("clinic-a"))
    vendor.revoke_all()
    renewed = await asyncio.gather(
        *(credential.again(request_for("clinic-a"), dead, b"any text") for _ in range(20))
    )
    assert vendor.logins == 2
    assert {each.lines for each in renewed if each} == {
        (await credential.authorise(request_for("clinic-a"))).lines
    }
    assert None not in renewed
    assert vendor.tokens.live()[0].workspace == "clinic-a"


async def test_a_preview_is_what_a_plain_call_carries(credential: EkaTokens) -> None:
    assert (await credential.preview({})).lines == (await credential.authorise(request_for())).lines


async def test_ticking_keeps_the_clients_own_token_warm_and_no_workspaces(
    credential: EkaTokens, vendor: EkaStandIn, tools: Tools
) -> None:
    assert credential.trouble() == "no token has come yet"
    assert credential.token_expires_in() is None
    tools.tokens.tick()
    held = await credential.authorise(request_for())
    assert vendor.logins == 1
    assert credential.trouble() is None
    assert credential.token_expires_in() == pytest.approx(1795)
    assert [grant.workspace for grant in vendor.tokens.live()] == [None]
    assert held.lines


async def test_trouble_is_told_without_secrets(
    stand_ins: StandIns, login_client: LoginClient, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = eka_settings(stand_ins.eka_url, client_secret="canary-secret")
    credential = EkaTokens("eka", settings, client=login_client, tools=tools)
    with pytest.raises(ProxyError) as caught:
        await credential.authorise(request_for())
    assert caught.value.code == "credential_rejected"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 20
    trouble = credential.trouble()
    assert trouble == caught.value.detail
    for shown in (trouble, repr(credential), repr(settings), str(settings), caplog.text):
        assert "canary" not in shown


async def test_new_secrets_are_tried_at_once_and_a_token_in_hand_is_kept(
    stand_ins: StandIns, login_client: LoginClient, tools: Tools, vendor: EkaStandIn
) -> None:
    settings = eka_settings(stand_ins.eka_url, client_secret="outdated")
    credential = EkaTokens("eka", settings, client=login_client, tools=tools)
    with pytest.raises(ProxyError):
        await credential.authorise(request_for())
    settings.client_secret._value = SANDBOX_CLIENT_SECRET
    credential.rekey()
    held = await credential.authorise(request_for())
    credential.rekey()
    assert await credential.authorise(request_for()) is held
    assert (vendor.login_failures, vendor.logins) == (1, 1)


async def test_an_equal_credential_of_a_reload_takes_over_the_tokens(
    credential: EkaTokens, login_client: LoginClient, tools: Tools, vendor: EkaStandIn
) -> None:
    held = await credential.authorise(request_for())
    clinic = await credential.authorise(request_for("clinic-a"))
    next_one = EkaTokens("eka", credential._settings, client=login_client, tools=tools)
    credential.retire([next_one])
    assert await next_one.authorise(request_for()) is held
    assert await next_one.authorise(request_for("clinic-a")) is clinic
    assert vendor.logins == 2


async def test_what_a_reload_left_out_is_renewed_no_more(
    credential: EkaTokens, tools: Tools, vendor: EkaStandIn, manual_clock: ManualClock
) -> None:
    await credential.authorise(request_for())
    credential.retire([])
    await manual_clock.advance(1790)
    tools.tokens.tick()
    await settle()
    assert (vendor.logins, vendor.refreshes_v2) == (1, 0)


async def test_renewal_goes_on_ahead_of_expiry_with_the_newest_refresh_token(
    credential: EkaTokens,
    tools: Tools,
    vendor: EkaStandIn,
    manual_clock: ManualClock,
    fetches: Fetches,
) -> None:
    for _ in range(120):
        before = await credential.authorise(request_for())
        await manual_clock.advance(100)
        tools.tokens.tick()
        slot = credential._slot(b"")
        if slot._fetching is not None:
            assert await credential.authorise(request_for()) is before
            await slot._fetching
    assert vendor.logins == 1
    assert 6 <= vendor.refreshes_v2 <= 10
    assert {outcome for _, outcome in fetches.grants} == {"ok"}


@pytest.mark.parametrize(
    "path",
    [
        "/connect-auth/v1/account/login",
        "/connect-auth/v1/account/refresh",
        "/connect-auth/v1/account/refresh-token",
    ],
)
async def test_logins_of_sdks_are_answered_here_and_nowhere_else(
    credential: EkaTokens, vendor: EkaStandIn, path: str
) -> None:
    answer = credential.local_answer("POST", path)
    assert answer is not None
    token = json.loads(answer)["access_token"]
    assert vendor.arrived == 0
    assert token.encode() not in (await credential.authorise(request_for())).lines


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/connect-auth/v1/account/login"),
        ("POST", "/connect-auth/v1/oidc-client/x/verify"),
        ("POST", "/connect-auth/v1/account/logins"),
        ("POST", "/"),
    ],
)
def test_other_calls_are_not_answered_here(credential: EkaTokens, method: str, path: str) -> None:
    assert credential.local_answer(method, path) is None


def test_what_belongs_to_the_credential_is_declared() -> None:
    assert EkaTokens.owned == {"authorization", "auth", "client-id", "jwt-payload"}
    assert EkaTokens.consumed == {"x-eka-workspace"}
    assert EkaTokens.refusals == {401}


async def test_a_call_needs_no_body_and_moves_no_money(credential: EkaTokens) -> None:
    assert not credential.needs_body("POST", "/dr/v1/appointment")
    assert not credential.is_financial("POST", "/dr/v1/appointment")


async def test_a_workspace_that_selects_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="selects no workspace"):
        eka_settings(workspaces={"a": {"user_token": "canary"}})


async def test_the_keys_of_the_store_hold_no_secret(credential: EkaTokens) -> None:
    shown = repr(credential.token_keys)
    assert len(credential.token_keys) == 3
    for secret in (SANDBOX_CLIENT_SECRET, *SANDBOX_SHARING_KEYS.values()):
        assert secret not in shown


async def test_an_outage_of_the_login_does_not_touch_a_valid_token(
    credential: EkaTokens, tools: Tools, vendor: EkaStandIn, manual_clock: ManualClock
) -> None:
    held = await credential.authorise(request_for())
    vendor.faults.add(Fault("POST /connect-auth", status=503, times=None))
    await manual_clock.advance(1700)
    tools.tokens.tick()
    slot = credential._slot(b"")
    assert slot._fetching is not None
    await asyncio.wait([slot._fetching])
    assert await credential.authorise(request_for()) is held
    assert credential.trouble() is None
    await manual_clock.advance(95)
    with pytest.raises(ProxyError) as caught:
        await credential.authorise(request_for())
    assert caught.value.code == "credential_unavailable"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://api.eka.care", True),
        ("https://api2.eka.care:8443", True),
        ("https://eka.care.evil.example", False),
        ("https://evileka.care", False),
        ("https://eka.care", False),
        ("http://127.0.0.1:9000", False),
        ("https://bucket.s3.amazonaws.com", False),
        ("https://staging.eko.in", False),
        ("https://mirror.example", True),
        ("https://mirror.example:444", False),
    ],
)
def test_a_token_may_go_to_eka_and_to_what_is_listed(url: str, *, allowed: bool) -> None:
    settings = eka_settings(origins=["https://mirror.example/base"])
    assert settings.permits(parse_origin(url)) is allowed
    assert settings.vendor_origins.startswith("https://*.eka.care ")
