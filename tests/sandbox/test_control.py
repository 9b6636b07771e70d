"""The control pages of the stand-ins, and starting them."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession

from proxy.sandbox import StandIns


async def control(
    http: ClientSession, origin: str, method: str, name: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    async with http.request(method, f"{origin}/_sandbox/{name}", json=body) as response:
        return response.status, await response.json()


async def test_the_state_counts_and_tells_no_secret(
    http: ClientSession, stand_ins: StandIns
) -> None:
    grant = stand_ins.eka.tokens.issue(None, 1800, 3600)
    _, state = await control(http, stand_ins.eka_url, "GET", "state")
    assert (state["live_tokens"], state["token_lifetime"], state["arrived"]) == (1, 1800, 0)
    assert grant.access not in str(state)
    assert grant.refresh not in str(state)
    _, state = await control(http, stand_ins.eko_url, "GET", "state")
    assert (state["payments"], state["skew_ms"]) == (0, 0)
    _, state = await control(http, stand_ins.storage_url, "GET", "state")
    assert (state["uploads"], state["leaks"]) == (0, 0)


@pytest.mark.parametrize("lever", ["revoke", "expire"])
async def test_tokens_can_be_killed(http: ClientSession, stand_ins: StandIns, lever: str) -> None:
    stand_ins.eka.tokens.issue(None, 1800, 3600)
    status, state = await control(http, stand_ins.eka_url, "POST", lever)
    assert (status, state["live_tokens"]) == (200, 0)


async def test_settings_can_be_changed(http: ClientSession, stand_ins: StandIns) -> None:
    await control(http, stand_ins.eka_url, "POST", "lifetime", {"seconds": 60})
    await control(http, stand_ins.eko_url, "POST", "skew", {"ms": -5000})
    assert stand_ins.eka.token_lifetime == 60
    assert stand_ins.eko.skew_ms == -5000


async def test_faults_can_be_added_listed_and_cleared(
    http: ClientSession, stand_ins: StandIns
) -> None:
    url = stand_ins.eko_url
    faults = [{"kind": "hang", "times": None}, {"match": "GET /ekoapi", "status": 503}]
    assert (await control(http, url, "POST", "faults", faults))[0] == 200
    assert (await control(http, url, "POST", "faults", {"kind": "garbage"}))[0] == 200
    _, listed = await control(http, url, "GET", "faults")
    assert [fault["kind"] for fault in listed["faults"]] == ["hang", "status", "garbage"]
    assert (await control(http, url, "DELETE", "faults"))[1] == {"faults": []}


async def test_a_bad_list_of_faults_changes_nothing(
    http: ClientSession, stand_ins: StandIns
) -> None:
    faults = [{"kind": "hang"}, {"kind": "explode"}]
    status, answer = await control(http, stand_ins.eka_url, "POST", "faults", faults)
    assert status == 400
    assert answer["error"].startswith("kind: expected one of status, delay")
    assert len(stand_ins.eka.faults) == 0


@pytest.mark.parametrize(
    ("vendor", "method", "name", "body", "status"),
    [
        ("eka", "POST", "lifetime", {"seconds": "1"}, 400),
        ("eka", "POST", "lifetime", {"seconds": 0}, 400),
        ("eka", "POST", "lifetime", [], 400),
        ("eko", "POST", "skew", {"ms": 1.5}, 400),
        ("eko", "POST", "revoke", None, 404),
        ("eka", "GET", "revoke", None, 404),
        ("eka", "PUT", "faults", None, 405),
    ],
)
async def test_a_mistake_is_answered_clearly(
    *,
    http: ClientSession,
    stand_ins: StandIns,
    vendor: str,
    method: str,
    name: str,
    body: Any,
    status: int,
) -> None:
    origin = {"eka": stand_ins.eka_url, "eko": stand_ins.eko_url}[vendor]
    answered, answer = await control(http, origin, method, name, body)
    assert answered == status
    assert answer.keys() == {"error"}


async def test_a_body_that_is_not_json_is_answered_clearly(
    http: ClientSession, stand_ins: StandIns
) -> None:
    async with http.post(f"{stand_ins.eka_url}/_sandbox/faults", data=b"{") as response:
        assert response.status == 400
        assert await response.json() == {"error": "the body is not JSON"}


async def test_reset_forgets_everything(http: ClientSession, stand_ins: StandIns) -> None:
    async with http.put(f"{stand_ins.storage_url}/x", headers={"auth": "x"}) as response:
        assert response.status == 400
    stand_ins.eka.tokens.issue(None, 1800, 3600)
    stand_ins.eka.token_lifetime = 1
    stand_ins.eko.skew_ms = 7
    for url in (stand_ins.eka_url, stand_ins.eko_url, stand_ins.storage_url):
        assert (await control(http, url, "POST", "reset"))[0] == 200
    assert (stand_ins.storage.arrived, stand_ins.storage.leaks) == (0, 0)
    assert len(stand_ins.storage.journal) == 0
    assert (stand_ins.eka.token_lifetime, stand_ins.eka.tokens.live()) == (1800, [])
    assert stand_ins.eko.skew_ms == 0


async def test_a_taken_port_is_an_error_unless_another_will_do(stand_ins: StandIns) -> None:
    taken = int(stand_ins.eka_url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await StandIns(eko_port=taken).__aenter__()
    async with StandIns(eko_port=taken, fallback=True) as others:
        assert others.eko_url != stand_ins.eka_url
        _, writer = await asyncio.open_connection("127.0.0.1", int(others.eko_url[17:]))
        writer.close()
        await writer.wait_closed()


async def test_an_ipv6_address_is_bracketed_in_the_origin() -> None:
    async with StandIns(host="::1") as stand_ins:
        assert stand_ins.eka_url.startswith("http://[::1]:")
