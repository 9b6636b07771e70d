"""Login, refresh, expiry and revocation at the Eka stand-in."""

from typing import Any, Protocol

import pytest
from aiohttp import ClientSession

from proxy.sandbox import (
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_SHARING_KEYS,
    ExpiresIn,
    StandIns,
)

ACCOUNT = "/connect-auth/v1/account"
GOOD = {"client_id": SANDBOX_CLIENT_ID, "client_secret": SANDBOX_CLIENT_SECRET}


class Clock(Protocol):
    seconds: float


class Eka:
    """A well-behaved client of Eka."""

    def __init__(self, http: ClientSession, origin: str) -> None:
        self._http = http
        self._origin = origin

    async def post(
        self, path: str, body: object, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with self._http.post(self._origin + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def login(self, **fields: str) -> dict[str, Any]:
        status, tokens = await self.post(f"{ACCOUNT}/login", GOOD | fields)
        assert status == 200
        return tokens

    async def refresh(self, tokens: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {
            "Authorization": f"Bearer {tokens['access_token']}",
            "Client-Id": SANDBOX_CLIENT_ID,
        }
        body = {"refresh_token": tokens["refresh_token"]}
        return await self.post(f"{ACCOUNT}/refresh-token", body, headers)

    async def call(self, access: str) -> tuple[int, dict[str, Any]]:
        headers = {
            "Authorization": f"Bearer {access}",
            "auth": access,
            "client-id": SANDBOX_CLIENT_ID,
        }
        async with self._http.get(f"{self._origin}/any/where", headers=headers) as response:
            return response.status, await response.json()


@pytest.fixture
def eka(http: ClientSession, stand_ins: StandIns) -> Eka:
    return Eka(http, stand_ins.eka_url)


async def test_login_answers_what_eka_documents(eka: Eka, stand_ins: StandIns) -> None:
    tokens = await eka.login()
    assert tokens.keys() == {"access_token", "refresh_token", "expires_in", "refresh_expires_in"}
    assert tokens["expires_in"] == 1800
    assert tokens["access_token"].count(".") == 2
    assert (await eka.call(tokens["access_token"]))[1]["workspace"] is None
    assert stand_ins.eka.logins == 1


@pytest.mark.parametrize("field", ["sharing_key", "api_key"])
async def test_a_workspace_is_implied_by_the_token_and_survives_refresh(
    eka: Eka, field: str
) -> None:
    tokens = await eka.login(**{field: SANDBOX_SHARING_KEYS["clinic-b"]})
    assert (await eka.call(tokens["access_token"]))[1]["workspace"] == "clinic-b"
    _, tokens = await eka.refresh(tokens)
    assert (await eka.call(tokens["access_token"]))[1]["workspace"] == "clinic-b"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD | {"client_secret": "canary-wrong"}, 401),
        (GOOD | {"client_id": "canary-wrong"}, 401),
        (GOOD | {"sharing_key": "canary-wrong"}, 401),
        (GOOD | {"sharing_key": "sandbox-sharing-key-a", "api_key": "sandbox-sharing-key-b"}, 401),
        ({}, 401),
        (GOOD | {"sharing_key": None}, 400),
        (GOOD | {"canary-key": "x"}, 400),
        (["canary-key"], 400),
    ],
)
async def test_a_login_that_is_wrong_is_refused_without_quoting_it(
    eka: Eka, stand_ins: StandIns, body: object, status: int
) -> None:
    answered, error = await eka.post(f"{ACCOUNT}/login", body)
    assert answered == status
    assert error.keys() == {"code", "error"}
    assert "canary" not in str(error)
    assert (stand_ins.eka.logins, stand_ins.eka.login_failures) == (0, 1)


@pytest.mark.parametrize(
    ("query", "content_type", "body", "status"),
    [
        ("", "application/x-www-form-urlencoded", b"client_id=x", 415),
        ("", "application/json", b"{", 400),
        ("?client_id=x", "application/json", b"{}", 400),
    ],
)
async def test_credentials_come_as_json_in_the_body_or_not_at_all(
    *,
    http: ClientSession,
    stand_ins: StandIns,
    query: str,
    content_type: str,
    body: bytes,
    status: int,
) -> None:
    url = f"{stand_ins.eka_url}{ACCOUNT}/login{query}"
    async with http.post(url, data=body, headers={"Content-Type": content_type}) as response:
        assert response.status == status


async def test_refresh_rotates_both_tokens_and_the_refresh_token_works_once(
    eka: Eka, stand_ins: StandIns
) -> None:
    first = await eka.login()
    status, second = await eka.refresh(first)
    assert status == 200
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    assert (await eka.refresh(first))[0] == 401
    assert (await eka.refresh(second))[0] == 200
    assert stand_ins.eka.refreshes_v2 == 2


async def test_refresh_v2_wants_the_access_token_of_its_own_session(eka: Eka) -> None:
    one, other = await eka.login(), await eka.login()
    mixed = one | {"access_token": other["access_token"]}
    assert (await eka.refresh(mixed))[0] == 401
    assert (await eka.refresh(one))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Client-Id": SANDBOX_CLIENT_ID},
        {"Authorization": "Bearer {access}"},
        {"Authorization": "Bearer {access}", "Client-Id": "dummy"},
        {"Authorization": "{access}", "Client-Id": SANDBOX_CLIENT_ID},
    ],
)
async def test_refresh_v2_wants_both_its_headers(eka: Eka, headers: dict[str, str]) -> None:
    tokens = await eka.login()
    sent = {name: value.format(access=tokens["access_token"]) for name, value in headers.items()}
    body = {"refresh_token": tokens["refresh_token"]}
    assert (await eka.post(f"{ACCOUNT}/refresh-token", body, sent))[0] == 401


async def test_refresh_v2_refuses_a_body_that_names_another_access_token(eka: Eka) -> None:
    tokens = await eka.login()
    headers = {
        "Authorization": f"Bearer {tokens['access_token']}",
        "Client-Id": SANDBOX_CLIENT_ID,
    }
    body = {"refresh_token": tokens["refresh_token"], "access_token": "other"}
    assert (await eka.post(f"{ACCOUNT}/refresh-token", body, headers))[0] == 401


async def test_refresh_v1_needs_no_header(eka: Eka, stand_ins: StandIns) -> None:
    tokens = await eka.login()
    body = {"refresh_token": tokens["refresh_token"]}
    assert (await eka.post(f"{ACCOUNT}/refresh", body))[0] == 200
    assert (await eka.post(f"{ACCOUNT}/refresh", body))[0] == 401
    assert (await eka.post(f"{ACCOUNT}/refresh", {}))[0] == 400
    assert stand_ins.eka.refreshes_v1 == 1


async def test_either_refresh_can_be_switched_off(eka: Eka, stand_ins: StandIns) -> None:
    stand_ins.eka.refresh_v1 = stand_ins.eka.refresh_v2 = False
    tokens = await eka.login()
    assert (await eka.refresh(tokens))[0] == 404
    assert (await eka.post(f"{ACCOUNT}/refresh", {}))[0] == 404


async def test_an_access_token_expires_by_the_clock(eka: Eka, clock: Clock) -> None:
    tokens = await eka.login()
    clock.seconds += 1799
    assert (await eka.call(tokens["access_token"]))[0] == 200
    clock.seconds += 1
    assert (await eka.call(tokens["access_token"]))[0] == 401


async def test_a_refresh_token_expires_by_the_clock(
    eka: Eka, stand_ins: StandIns, clock: Clock
) -> None:
    stand_ins.eka.refresh_lifetime = 3600
    tokens = await eka.login()
    clock.seconds += 3600
    assert (await eka.refresh(tokens))[0] == 401


@pytest.mark.parametrize(("accepts", "status"), [(True, 200), (False, 401)])
async def test_whether_v2_takes_an_expired_access_token_can_be_chosen(
    eka: Eka, stand_ins: StandIns, *, accepts: bool, status: int
) -> None:
    stand_ins.eka.refresh_accepts_dead = accepts
    tokens = await eka.login()
    stand_ins.eka.expire_all()
    assert (await eka.call(tokens["access_token"]))[0] == 401
    assert (await eka.refresh(tokens))[0] == status


async def test_revoking_spares_the_sessions_unless_told(eka: Eka, stand_ins: StandIns) -> None:
    tokens = await eka.login()
    stand_ins.eka.revoke_all()
    assert (await eka.call(tokens["access_token"]))[0] == 401
    _, renewed = await eka.refresh(tokens)
    stand_ins.eka.revoke_all(sessions=True)
    assert (await eka.refresh(renewed))[0] == 401


@pytest.mark.parametrize("value", [0, -5, "1800", 10**12, None])
async def test_expires_in_can_be_anything(eka: Eka, stand_ins: StandIns, value: object) -> None:
    stand_ins.eka.expires_in_answer = value
    assert (await eka.login())["expires_in"] == value


async def test_expires_in_can_be_left_out(eka: Eka, stand_ins: StandIns) -> None:
    stand_ins.eka.expires_in_answer = ExpiresIn.OMIT
    assert "expires_in" not in await eka.login()
