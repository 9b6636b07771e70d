"""Login and refresh against a stand-in that judges them, and against answers that are odd."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.eka_login import EkaLogin, read_grant, synthetic_answer
from proxy.credentials.login import LoginAnswer, LoginClient
from proxy.sandbox import (
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_SHARING_KEYS,
    EkaStandIn,
    ExpiresIn,
    Fault,
)
from proxy.tokens import FetchError, Token
from tests.credentials.support import Fetches, lines_of

if TYPE_CHECKING:
    from tests.support import ManualClock

LOGIN = "POST /connect-auth/v1/account/login"
REFRESH = "POST /connect-auth/v1/account/refresh"
BODY = {"client_id": SANDBOX_CLIENT_ID, "client_secret": SANDBOX_CLIENT_SECRET}
CANARY = "canary-4711"


class Recorder(LoginClient):
    """Keeps what is sent, and may let time pass while it waits for an answer."""

    def __init__(self, root: str, clock: ManualClock) -> None:
        super().__init__(root)
        self.sent: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.clock = clock
        self.takes = 0.0

    async def post(self, path: str, payload: Any, headers: Any) -> LoginAnswer:
        self.sent.append((path.rpartition("/")[2], dict(payload), dict(headers)))
        answer = await super().post(path, payload, headers)
        await self.clock.advance(self.takes)
        return answer


@pytest.fixture
async def recorder(login_client: LoginClient, manual_clock: ManualClock) -> Recorder:
    recorder = Recorder(login_client._root, manual_clock)
    recorder._session = login_client._open()  # closed with it
    return recorder


@pytest.fixture
def login(recorder: Recorder, manual_clock: ManualClock, fetches: Fetches) -> EkaLogin:
    return make(recorder, manual_clock, fetches)


def make(client: LoginClient, clock: ManualClock, fetches: Fetches, **more: str) -> EkaLogin:
    return EkaLogin("eka", BODY | more, key="key", client=client, clock=clock, observer=fetches)


async def failure(login: EkaLogin, before: Token | None = None) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await login.fetch(before)
    return caught.value


# Logging in.


async def test_a_login_yields_a_token_in_all_three_fields(
    login: EkaLogin, vendor: EkaStandIn, fetches: Fetches
) -> None:
    token = await login.fetch(None)
    (grant,) = vendor.tokens.live()
    assert token.value == grant.access
    assert token.refresh == grant.refresh
    assert lines_of(token) == {
        "Authorization": f"Bearer {grant.access}",
        "auth": grant.access,
        "client-id": SANDBOX_CLIENT_ID,
    }
    assert fetches.seen == [("eka", "login", "ok")]


async def test_a_login_sends_what_is_configured_and_nothing_else(
    login: EkaLogin, recorder: Recorder
) -> None:
    await login.fetch(None)
    assert recorder.sent == [("login", BODY, {})]


@pytest.mark.parametrize("name", ["sharing_key", "api_key"])
async def test_a_workspaces_key_is_sent_under_the_name_that_is_configured(
    name: str,
    recorder: Recorder,
    vendor: EkaStandIn,
    manual_clock: ManualClock,
    fetches: Fetches,
) -> None:
    chosen = {name: SANDBOX_SHARING_KEYS["clinic-b"], "user_token": "u"}
    await make(recorder, manual_clock, fetches, **chosen).fetch(None)
    assert recorder.sent == [("login", BODY | chosen, {})]
    assert [grant.workspace for grant in vendor.tokens.live()] == ["clinic-b"]


async def test_wrong_credentials_are_refused_and_not_quoted(
    recorder: Recorder, manual_clock: ManualClock, fetches: Fetches
) -> None:
    error = await failure(make(recorder, manual_clock, fetches, client_secret=CANARY))
    assert error.refused
    assert "Check its client_id and client_secret" in error.detail
    assert CANARY not in error.detail
    assert fetches.grants == [("login", "refused")]


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        *((400, True), (401, True), (403, True), (404, True), (405, True), (422, True)),
        *((408, False), (425, False), (429, False)),
        *((301, False), (302, False), (500, False), (502, False), (503, False)),
    ],
)
async def test_a_login_is_given_up_on_only_where_trying_again_cannot_help(
    login: EkaLogin, vendor: EkaStandIn, fetches: Fetches, status: int, *, refused: bool
) -> None:
    vendor.faults.add(Fault(LOGIN, status=status, body=f'{{"error": "{CANARY}"}}'))
    error = await failure(login)
    assert error.refused is refused
    assert str(status) in error.detail
    assert CANARY not in error.detail
    assert fetches.grants == [("login", "refused" if refused else "failed")]


# How long a token lives.


async def test_a_life_counts_from_before_the_call_less_a_leeway(
    login: EkaLogin, recorder: Recorder, manual_clock: ManualClock
) -> None:
    began = manual_clock.now()
    recorder.takes = 8
    token = await login.fetch(None)
    assert manual_clock.now() == began + 8
    assert token.expires_at == began + 1800 - 5


@pytest.mark.parametrize(
    ("told", "lifetime"),
    [
        (1800, 1795.0),
        ("1800", 1795.0),
        (60, 57.0),
        (1, 0.95),
        (0.5, 0.475),
        (1e12, 86_395.0),
        (10**12, 86_395.0),
        (10**400, 86_395.0),
        (ExpiresIn.OMIT, 595.0),
        (None, 595.0),
    ],
)
async def test_every_usable_lifetime_is_used_within_a_day(
    login: EkaLogin, vendor: EkaStandIn, manual_clock: ManualClock, told: object, lifetime: float
) -> None:
    vendor.expires_in_answer = told
    token = await login.fetch(None)
    assert token.expires_at - manual_clock.now() == pytest.approx(lifetime)


@pytest.mark.parametrize(
    "told",
    [
        *(0, -1, -1800.5, "0", "-5", "abc", "", "1e3", "1800 ", "٣٠", True, False, [], {}),
        *(float("nan"), float("inf"), float("-inf")),
    ],
)
async def test_a_token_of_no_known_life_is_not_used(
    login: EkaLogin, vendor: EkaStandIn, told: object
) -> None:
    vendor.expires_in_answer = told
    error = await failure(login)
    assert "expires_in" in error.detail
    assert not error.refused


# Odd answers.


@pytest.mark.parametrize(
    "body",
    [
        *("", " ", "<html>canary-4711</html>", "null", "[]", '"canary-4711"', "12", "{}", "{"),
        *('{"access_token": null}', '{"access_token": ""}', '{"access_token": ["canary-4711"]}'),
        *('{"access_token": 5}', '{"access_token": true}', '{"data": {"access_token": "x"}}'),
        '{"access_token": "canary-4711\\r\\nX-Injected: 1"}',
        '{"access_token": "canary-4711\\n"}',
        '{"access_token": "canary-4711 with space"}',
        '{"access_token": "canary-4711\\u00e9"}',
        '{"access_token": "canary-4711\\u0000"}',
        '{"access_token": "\\ud800"}',
        json.dumps({"access_token": "x" * 16_385}),
        "[" * 60_000,
    ],
)
async def test_an_answer_without_a_usable_token_is_a_failure_that_quotes_nothing(
    login: EkaLogin, vendor: EkaStandIn, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vendor.faults.add(Fault(LOGIN, status=200, body=body))
    error = await failure(login)
    assert not error.refused
    for shown in (str(error), error.detail, repr(error), caplog.text):
        assert CANARY not in shown


@given(st.binary(max_size=100) | st.text(max_size=50).map(lambda text: json.dumps(text).encode()))
def test_no_answer_is_stumbled_over(body: bytes) -> None:
    with pytest.raises(FetchError):
        read_grant(body)


@pytest.mark.parametrize("refresh", ["null", '""', "5", '"a\\nb"', '"\\u00e9"', "[]"])
def test_a_refresh_token_that_cannot_be_used_is_none(refresh: str) -> None:
    grant = read_grant(f'{{"access_token": "a", "refresh_token": {refresh}}}'.encode())
    assert grant.refresh_token is None


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7.0, 7.0),
        ("0", 0.0, 0.0),
        ("9" * 30, 1e8, 1e9),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e7, 1e10),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0.0, 0.0),
        ("Sat, 01 Jan 2000 00:00:00 -0000", 0.0, 0.0),
    ],
)
async def test_a_retry_after_is_read_as_seconds_or_as_a_date(
    login: EkaLogin, vendor: EkaStandIn, header: str, low: float, high: float
) -> None:
    vendor.faults.add(Fault(LOGIN, status=429, headers={"Retry-After": header}))
    error = await failure(login)
    assert error.retry_after is not None
    assert low <= error.retry_after <= high
    assert not error.refused


@pytest.mark.parametrize("header", ["soon", "", "-5", "1.5", "²", "Fri, 99 Foo 2100 00:00:00 GMT"])
async def test_a_retry_after_that_is_neither_is_none(
    login: EkaLogin, vendor: EkaStandIn, header: str
) -> None:
    vendor.faults.add(Fault(LOGIN, status=503, headers={"Retry-After": header}))
    assert (await failure(login)).retry_after is None


# Refreshing.


async def test_a_token_is_refreshed_by_the_current_call(
    login: EkaLogin, recorder: Recorder, vendor: EkaStandIn, fetches: Fetches
) -> None:
    first = await login.fetch(None)
    second = await login.fetch(first)
    assert second.value != first.value
    assert (vendor.logins, vendor.refreshes_v2, vendor.refreshes_v1) == (1, 1, 0)
    assert recorder.sent[1] == (
        "refresh-token",
        {"refresh_token": first.refresh, "access_token": first.value},
        {"Authorization": f"Bearer {first.value}", "Client-Id": SANDBOX_CLIENT_ID},
    )
    assert fetches.grants == [("login", "ok"), ("refresh", "ok")]


async def test_the_newest_refresh_token_is_the_one_that_is_sent(
    login: EkaLogin, recorder: Recorder, vendor: EkaStandIn
) -> None:
    token = await login.fetch(None)
    spent = []
    for _ in range(4):
        spent.append(token.refresh)
        token = await login.fetch(token)
    assert [body["refresh_token"] for _, body, _ in recorder.sent[1:]] == spent
    assert len(set(spent)) == 4
    assert (vendor.logins, vendor.refreshes_v2) == (1, 4)


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_the_older_refresh_is_tried_where_the_current_one_is_not_there(
    login: EkaLogin,
    recorder: Recorder,
    vendor: EkaStandIn,
    fetches: Fetches,
    status: int,
) -> None:
    first = await login.fetch(None)
    vendor.faults.add(Fault(f"{REFRESH}-token", status=status))
    await login.fetch(first)
    assert (vendor.logins, vendor.refreshes_v1) == (1, 1)
    assert recorder.sent[2][0] == "refresh"
    assert recorder.sent[2][2] == {}
    assert fetches.grants[1:] == [("refresh", "refused"), ("refresh_v1", "ok")]


async def test_a_login_follows_where_no_refresh_is_there(
    login: EkaLogin, vendor: EkaStandIn, fetches: Fetches
) -> None:
    first = await login.fetch(None)
    vendor.refresh_v1 = vendor.refresh_v2 = False
    second = await login.fetch(first)
    assert second.value != first.value
    assert vendor.logins == 2
    assert [grant for grant, _ in fetches.grants] == ["login", "refresh", "refresh_v1", "login"]


@pytest.mark.parametrize("status", [400, 401, 403, 406, 409, 415, 422])
async def test_a_login_follows_a_refused_refresh(
    login: EkaLogin, vendor: EkaStandIn, status: int
) -> None:
    first = await login.fetch(None)
    vendor.faults.add(Fault(REFRESH, status=status))
    await login.fetch(first)
    assert (vendor.logins, vendor.refreshes_v1, vendor.refreshes_v2) == (2, 0, 0)


async def test_a_login_follows_a_refresh_token_that_was_used_up(
    login: EkaLogin, vendor: EkaStandIn
) -> None:
    first = await login.fetch(None)
    await login.fetch(first)
    assert (await login.fetch(first)).value != first.value
    assert vendor.logins == 2


async def test_a_token_without_refresh_token_means_log_in(
    login: EkaLogin, vendor: EkaStandIn
) -> None:
    answer = json.dumps({"access_token": "older-answer"})
    vendor.faults.add(Fault(LOGIN, status=200, body=answer))
    first = await login.fetch(None)
    assert first.refresh is None
    await login.fetch(first)
    assert vendor.logins == 1


@pytest.mark.parametrize("status", [302, 429, 500, 503])
async def test_a_refresh_that_fails_for_now_waits_while_the_token_is_valid(
    login: EkaLogin, vendor: EkaStandIn, manual_clock: ManualClock, status: int
) -> None:
    first = await login.fetch(None)
    vendor.faults.add(Fault(REFRESH, status=status, headers={"Retry-After": "9"}, times=None))
    error = await failure(login, first)
    assert (error.refused, error.retry_after) == (False, 9.0)
    assert vendor.logins == 1
    await manual_clock.advance(1800)
    assert (await login.fetch(first)).value != first.value
    assert vendor.logins == 2


@pytest.mark.parametrize("accepts_dead", [True, False])
async def test_an_expired_token_is_renewed_whether_or_not_it_can_be_refreshed(
    login: EkaLogin, vendor: EkaStandIn, manual_clock: ManualClock, *, accepts_dead: bool
) -> None:
    vendor.refresh_accepts_dead = accepts_dead
    first = await login.fetch(None)
    await manual_clock.advance(3600)
    assert (await login.fetch(first)).expires_at > manual_clock.now()
    assert vendor.logins == (1 if accepts_dead else 2)


# The answer that SDKs get.


def test_the_synthetic_answer_is_what_sdks_can_work_with() -> None:
    now = 1_700_000_000
    answer = json.loads(synthetic_answer(now))
    head, claims, signature = answer["access_token"].split(".")
    decoded = [
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for part in (head, claims)
    ]
    assert decoded[0]["typ"] == "JWT"
    assert decoded[1]["exp"] == now + answer["expires_in"]
    assert base64.urlsafe_b64decode(signature)
    assert type(answer["expires_in"]) is int
    assert answer["expires_in"] > 300
    assert type(answer["refresh_expires_in"]) is int
    assert answer["refresh_token"]
    assert "=" not in answer["access_token"]


async def test_no_token_or_secret_is_in_a_repr(login: EkaLogin) -> None:
    token = await login.fetch(None)
    grant = read_grant(b'{"access_token": "canary-4711", "refresh_token": "canary-4711"}')
    answer = LoginAnswer(200, CANARY.encode(), None)
    for shown in (repr(login), repr(token), repr(grant), repr(answer)):
        assert CANARY not in shown
        assert token.value not in shown
        assert SANDBOX_CLIENT_SECRET not in shown
