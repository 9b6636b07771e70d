"""Signatures and timestamps at the Eko stand-in, against Eko's published vectors."""

import base64
import hashlib
import hmac
from typing import Any, Protocol

import pytest
from aiohttp import ClientSession

from proxy.sandbox import SANDBOX_ACCESS_KEY, SANDBOX_DEVELOPER_KEY, StandIns

PATH = "/ekoapi/v3/customer/payment/bbps/operators"
GENERAL = "d2fe1d99-6298-4af2-8cc5-d97dcf46df30"

# access key, timestamp, secret-key: the first three published by Eko, the others computed
# alike in three languages.
VECTORS = [
    (
        "f74c50a1-f705-4634-9cda-30a477df91b7",
        "1516705204593",
        "MC6dKW278tBef+AuqL/5rW2K3WgOegF0ZHLW/FriZQw=",
    ),
    (
        "TEST_ACCESS_KEY_DO_NOT_USE",
        "1700000000000",
        "u30ak/iOGwKCaspqCeiYng8fd98QDx7kF3DBBOadQHk=",
    ),
    ("test-access-key-123", "1700000000000", "88lqTf9ew69XbVbeczjxVL8/B4vibfp1MvTi1mIj2Xo="),
    (GENERAL, "1700000000000", "qIir8tILHtqxO1Mu3/fC3pVElIa0oIxXMRDUP0463Bc="),
    (GENERAL, "1516705204593", "FOoQl9IrqxsvErSHbIbHqfzDA/vvcSVdKxoY9uUaHmM="),
    (
        "f46fd59b-bc90-41e2-9a52-efb5c0778d50",
        "1767225600000",
        "Ftj3kBdJslxjdplodPy/4NyHG/jnMfXuDG/udeyJInA=",
    ),
]
# What a sample yields that leaves the base64 step out.
WITHOUT_BASE64 = (GENERAL, "1700000000000", "ADpYKsHy4BKM7jVMJAdkWUJqdqvf0wZwStJf8yC2Lmg=")


class Clock(Protocol):
    seconds: float


def signed(timestamp: str = "1700000000000", access_key: str = GENERAL) -> dict[str, str]:
    key = base64.b64encode(access_key.encode())
    digest = hmac.new(key, timestamp.encode(), hashlib.sha256).digest()
    return {
        "developer_key": SANDBOX_DEVELOPER_KEY,
        "secret-key": base64.b64encode(digest).decode(),
        "secret-key-timestamp": timestamp,
    }


async def ask(
    http: ClientSession, stand_ins: StandIns, headers: Any, path: str = PATH
) -> tuple[int, dict[str, Any]]:
    async with http.get(stand_ins.eko_url + path, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(("access_key", "timestamp", "secret_key"), VECTORS)
async def test_known_signatures_are_accepted(
    *,
    http: ClientSession,
    stand_ins: StandIns,
    clock: Clock,
    access_key: str,
    timestamp: str,
    secret_key: str,
) -> None:
    clock.seconds = int(timestamp) / 1000
    stand_ins.eko.door.product_keys["/"] = access_key
    headers = signed(timestamp) | {"secret-key": secret_key}
    status, answer = await ask(http, stand_ins, headers)
    assert (status, answer["status"], answer["data"]["target"]) == (200, 0, PATH)
    assert stand_ins.eko.calls == 1


async def test_a_signature_without_the_base64_step_is_refused(
    http: ClientSession, stand_ins: StandIns
) -> None:
    access_key, timestamp, secret_key = WITHOUT_BASE64
    assert access_key == SANDBOX_ACCESS_KEY
    status, answer = await ask(http, stand_ins, signed(timestamp) | {"secret-key": secret_key})
    assert (status, answer["status"]) == (401, 2484)
    assert stand_ins.eko.calls == 0


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("developer_key", "canary", 2483),
        ("developer_key", "", 2487),
        ("developer_key", None, 2487),
        ("secret-key", "canary", 2484),
        ("secret-key", None, 2487),
        ("secret-key-timestamp", "1700000000", 2486),
        ("secret-key-timestamp", "+700000000000", 2486),
        ("secret-key-timestamp", "canary", 2486),
        ("secret-key-timestamp", None, 2487),
    ],
)
async def test_each_mistake_has_ekos_own_number(
    http: ClientSession, stand_ins: StandIns, name: str, value: str | None, number: int
) -> None:
    headers = signed()
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    status, answer = await ask(http, stand_ins, headers)
    assert status == 401
    assert answer.keys() == {"status", "response_status_id", "response_type_id", "message"}
    assert (answer["status"], answer["response_status_id"]) == (number, -1)
    assert "canary" not in str(answer)
    assert stand_ins.eko.refused[number] == 1


@pytest.mark.parametrize(
    ("off_by_ms", "status"), [(120_000, 200), (-120_000, 200), (120_001, 401), (-120_001, 401)]
)
async def test_two_minutes_are_tolerated_and_no_more(
    http: ClientSession, stand_ins: StandIns, off_by_ms: int, status: int
) -> None:
    headers = signed(str(1_700_000_000_000 + off_by_ms))
    answered, answer = await ask(http, stand_ins, headers)
    assert answered == status
    assert answer["status"] == (0 if status == 200 else 2485)


async def test_the_servers_clock_can_be_off(http: ClientSession, stand_ins: StandIns) -> None:
    stand_ins.eko.skew_ms = -300_000
    status, answer = await ask(http, stand_ins, signed())
    assert (status, answer["status"]) == (401, 2485)
    assert (await ask(http, stand_ins, signed("1699999700000")))[0] == 200


async def test_a_timestamp_works_once_under_each_key(
    http: ClientSession, stand_ins: StandIns
) -> None:
    stand_ins.eko.door.product_keys["/user/payment/aeps/settlement"] = "settlement-key"
    settlement = "/ekoapi/v3/user/payment/aeps/settlement/accounts"
    other = signed(access_key="settlement-key")
    assert (await ask(http, stand_ins, signed()))[0] == 200
    assert (await ask(http, stand_ins, signed()))[1]["status"] == 2485
    assert (await ask(http, stand_ins, other, settlement))[0] == 200
    assert (await ask(http, stand_ins, other, settlement))[1]["status"] == 2485
    assert (await ask(http, stand_ins, signed("1700000000001"), settlement))[1]["status"] == 2484


async def test_a_refused_request_does_not_use_up_its_timestamp(
    http: ClientSession, stand_ins: StandIns
) -> None:
    assert (await ask(http, stand_ins, signed() | {"secret-key": "wrong"}))[0] == 401
    assert (await ask(http, stand_ins, signed()))[0] == 200


async def test_used_timestamps_are_forgotten_once_too_old_to_be_accepted(
    http: ClientSession, stand_ins: StandIns, clock: Clock
) -> None:
    for age in (2, 1, 0):
        assert (await ask(http, stand_ins, signed(str(1_700_000_000_000 - age))))[0] == 200
    clock.seconds += 119.999
    assert (await ask(http, stand_ins, signed("1700000119999")))[0] == 200
    assert stand_ins.eko.door.remembered() == 3
    assert (await ask(http, stand_ins, signed("1700000000000")))[1]["status"] == 2485


@pytest.mark.parametrize(
    "extra",
    [
        ("developer_key", "canary"),
        ("developer-key", "canary"),
        ("Developer.Key", "canary"),
        ("secret-key", "canary"),
        ("secret_key", "canary"),
        ("SECRET_KEY_TIMESTAMP", "canary"),
        ("request-hash", "canary"),
    ],
)
async def test_a_second_spelling_or_copy_is_refused(
    http: ClientSession, stand_ins: StandIns, extra: tuple[str, str]
) -> None:
    status, answer = await ask(http, stand_ins, [*signed().items(), extra])
    assert (status, answer["status"]) == (400, 400)
    assert "canary" not in str(answer)


@pytest.mark.parametrize("base", ["/ekoapi/v1", "/ekoapi/v2", "/ekoicici/v1", "/ekoicici/v3"])
async def test_both_bases_and_all_versions_exist(
    http: ClientSession, stand_ins: StandIns, base: str
) -> None:
    path = f"{base}/banks/ifsc:KKBK0000261/accounts/1?b=1"
    status, answer = await ask(http, stand_ins, signed(), path)
    assert (status, answer["data"]["target"]) == (200, path)


@pytest.mark.parametrize("path", ["/", "/ekoapi/v4/x", "/ekoapi/v3", "/other/v3/x"])
async def test_other_paths_do_not_exist(
    http: ClientSession, stand_ins: StandIns, path: str
) -> None:
    status, answer = await ask(http, stand_ins, signed(), path)
    assert (status, answer["status"]) == (404, 404)
