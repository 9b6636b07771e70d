"""Eka's long-lived token: sent as it is, final when refused."""

from __future__ import annotations

import pytest

from proxy.addresses import parse_origin
from proxy.credentials.bearer import Bearer, BearerSettings
from tests.credentials.support import lines_of, outgoing

CANARY = "canary.long-lived.token"


def settings(token: object = CANARY) -> BearerSettings:
    return BearerSettings.model_validate({"kind": "bearer", "token": token})


async def test_every_request_carries_the_token_in_both_fields() -> None:
    credential = Bearer(settings())
    lines = lines_of(await credential.authorise(outgoing()))
    assert lines == {"Authorization": f"Bearer {CANARY}", "auth": CANARY}
    assert (await credential.preview({})).lines == (await credential.authorise(outgoing())).lines


async def test_a_refusal_is_final() -> None:
    credential = Bearer(settings())
    sent = await credential.authorise(outgoing())
    assert credential.refusals == set()
    assert await credential.again(outgoing(), sent, b"") is None


def test_vendor_logins_pass_and_there_is_nothing_to_expire() -> None:
    credential = Bearer(settings())
    assert credential.local_answer("POST", "/connect-auth/v1/account/login") is None
    assert credential.token_expires_in() is None
    assert credential.trouble() is None
    assert credential.owned == {"authorization", "auth", "jwt-payload"}


async def test_a_changed_file_is_used_after_a_rekey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "first")
    configured = settings({"env": "SOME_TOKEN"})
    credential = Bearer(configured)
    assert lines_of(await credential.authorise(outgoing()))["auth"] == "first"
    configured.token._value = "second"
    credential.rekey()
    assert lines_of(await credential.authorise(outgoing()))["auth"] == "second"


async def test_no_repr_shows_the_token() -> None:
    credential = Bearer(settings())
    sent = await credential.authorise(outgoing())
    for shown in (repr(credential), repr(sent), str(sent), repr(settings()), str(settings())):
        assert CANARY not in shown


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://api.eka.care", True),
        ("https://api.eka.care.evil.example", False),
        ("http://localhost:1", False),
    ],
)
def test_the_token_may_go_to_eka_alone(url: str, *, allowed: bool) -> None:
    assert settings().permits(parse_origin(url)) is allowed
