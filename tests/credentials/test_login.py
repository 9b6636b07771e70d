"""The HTTP leg of logins: one origin, one request, a small answer or none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import aiohttp
import pytest

from proxy.credentials.login import LoginAnswer, LoginClient
from proxy.sandbox import EkaStandIn, Fault, StandIns
from proxy.secrets import Secret
from proxy.tokens import FetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = "/connect-auth/v1/account/login"
CANARY = {"client_id": "canary-id", "client_secret": "canary-secret"}


@pytest.fixture
async def other() -> AsyncIterator[StandIns]:
    """Another origin, which must hear of nothing."""
    async with StandIns() as running:
        yield running
        assert running.eka.arrived == 0


async def failure(client: LoginClient) -> str:
    with pytest.raises(FetchError) as caught:
        await client.post(PATH, CANARY, {"Authorization": "Bearer canary-token"})
    assert not caught.value.refused
    return caught.value.detail


async def test_a_request_is_json_without_cookies_or_more_than_is_given(
    login_client: LoginClient, vendor: EkaStandIn
) -> None:
    fault = Fault(status=200, body="first", headers={"Set-Cookie": "session=1; Path=/"}, times=2)
    vendor.faults.add(fault)
    answers = [await login_client.post(PATH, CANARY, {"Client-Id": "x"}) for _ in range(2)]
    assert answers == [LoginAnswer(200, b"first", None)] * 2
    for arrived in vendor.journal:
        headers = {name.decode().lower(): value.decode() for name, value in arrived.headers}
        assert (arrived.method, arrived.target) == ("POST", PATH)
        assert headers["content-type"] == "application/json"
        assert headers["client-id"] == "x"
        assert "cookie" not in headers
        assert "authorization" not in headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(
    login_client: LoginClient, vendor: EkaStandIn, other: StandIns, status: int
) -> None:
    headers = {"Location": other.eka_url + PATH}
    vendor.faults.add(Fault(status=status, headers=headers))
    assert (await login_client.post(PATH, CANARY, {})).status == status
    assert vendor.arrived == 1


async def test_a_proxy_in_the_environment_is_not_used(
    login_client: LoginClient, other: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, other.eka_url)
    assert (await login_client.post(PATH, CANARY, {})).status == 401


async def test_an_answer_far_too_large_is_given_up_early(
    login_client: LoginClient, vendor: EkaStandIn
) -> None:
    vendor.faults.add(Fault(status=200, body="x" * 30_000_000))
    assert "far too large" in await failure(login_client)


async def test_an_answer_as_large_as_is_allowed_is_read(
    login_client: LoginClient, vendor: EkaStandIn
) -> None:
    vendor.faults.add(Fault(status=200, body="x" * 65_536))
    assert len((await login_client.post(PATH, CANARY, {})).body) == 65_536


@pytest.mark.parametrize(
    "kind",
    ["reset_before_head", "close_before_head", "reset_mid_body", "short_body", "garbage"],
)
async def test_a_broken_answer_is_a_failure_that_tells_the_origin_alone(
    login_client: LoginClient, vendor: EkaStandIn, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vendor.faults.add(Fault(kind=kind, status=200, body="canary-answer"))  # type: ignore[arg-type]
    detail = await failure(login_client)
    assert detail.startswith(f"the token endpoint {login_client._root} did not answer")
    assert "canary" not in detail + caplog.text
    assert vendor.arrived == 1


async def test_the_next_call_after_a_broken_one_works(
    login_client: LoginClient, vendor: EkaStandIn
) -> None:
    vendor.faults.add(Fault(kind="reset_mid_body"))
    await failure(login_client)
    assert (await login_client.post(PATH, CANARY, {})).status == 401


async def test_an_endpoint_that_hangs_is_given_up(stand_ins: StandIns) -> None:
    stand_ins.eka.faults.add(Fault(kind="hang"))
    client = LoginClient(stand_ins.eka_url, timeout=aiohttp.ClientTimeout(total=0.05))
    assert "TimeoutError" in await failure(client)
    await client.close()


async def test_the_usual_timeout_is_shorter_than_a_callers_patience(
    login_client: LoginClient,
) -> None:
    timeout = login_client._open().timeout
    assert timeout.total is not None
    assert timeout.total <= 30


async def test_an_endpoint_that_is_not_there_is_a_failure() -> None:
    client = LoginClient("http://127.0.0.1:1")
    assert "did not answer (Connect call failed" in await failure(client)
    await client.close()


async def test_the_outbound_proxys_password_is_in_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    via = Secret.literal("http://user:canary-password@127.0.0.1:1")
    client = LoginClient("http://127.0.0.1:2", via=via)
    detail = await failure(client)
    assert "canary" not in detail + caplog.text + repr(client)
    await client.close()


async def test_closing_twice_or_unused_is_no_matter_and_final(login_client: LoginClient) -> None:
    await LoginClient("http://127.0.0.1:1").close()
    await login_client.post(PATH, CANARY, {})
    await login_client.close()
    await login_client.close()
    assert "stopping" in await failure(login_client)
