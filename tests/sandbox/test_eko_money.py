"""Payments at the Eko stand-in: request_hash, content types, records and inquiries."""

import base64
import hashlib
import hmac
import io
import itertools
from typing import Any

import pytest
from aiohttp import ClientSession, FormData

from proxy.sandbox import (
    SANDBOX_AADHAAR,
    SANDBOX_AADHAAR_CIPHERTEXT,
    SANDBOX_ACCESS_KEY,
    SANDBOX_DEVELOPER_KEY,
    SANDBOX_USER_CODE,
    StandIns,
)

PAYBILL = "/ekoapi/v2/billpayments/paybill"
BBPS = "/ekoicici/v3/customer/payment/bbps"
AEPS = "/ekoapi/v2/aeps"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

# Fields and request_hash under the general staging key at 1700000000000, computed alike in
# three languages.
BILL_VECTORS = [
    (("151627591", "50", "20810200"), "TO65c2+vieXFx4+yDLN50NoAHe1fnfyWfIAB2NJkiNc="),
    (("766851234", "100", "32221002"), "kub2lUvgAYPCbvIO+19jS5hfSUOOGrvS2fkw03RmwZk="),
]
AEPS_VECTORS = [
    ("100", "6wPCUMuVanQhjVtFBV8n8TKeCWZlApbdgbBRD+DcPko="),
    ("0", "2UNg2LobVA1dSxLQ64lQsByy/2c2wjU/YA65vrgmsQc="),
]


def sign(message: str) -> str:
    key = base64.b64encode(SANDBOX_ACCESS_KEY.encode())
    return base64.b64encode(hmac.new(key, message.encode(), hashlib.sha256).digest()).decode()


class Eko:
    """A client that signs well, with a fresh timestamp for each request."""

    def __init__(self, http: ClientSession, origin: str) -> None:
        self._http = http
        self._origin = origin
        self._timestamps = itertools.count(1_700_000_000_000)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        covers: str | None = None,
    ) -> tuple[int, dict[str, Any]]:
        timestamp = str(next(self._timestamps))
        sent = {
            "developer_key": SANDBOX_DEVELOPER_KEY,
            "secret-key": sign(timestamp),
            "secret-key-timestamp": timestamp,
        }
        if covers is not None:
            sent["request_hash"] = sign(timestamp + covers)
        url = self._origin + path
        async with self._http.request(
            method, url, data=body, headers=sent | (headers or {})
        ) as response:
            return response.status, await response.json()

    async def post(
        self, path: str, body: Any, media_type: str = JSON, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": media_type} | more.pop("headers", {})
        return await self.send("POST", path, body, headers, **more)


@pytest.fixture
def eko(http: ClientSession, stand_ins: StandIns) -> Eko:
    return Eko(http, stand_ins.eko_url)


@pytest.mark.parametrize(("fields", "request_hash"), BILL_VECTORS)
@pytest.mark.parametrize("where", ["json", "form", "query"])
async def test_known_hashes_are_accepted_wherever_the_fields_stand(
    eko: Eko, fields: tuple[str, str, str], request_hash: str, where: str
) -> None:
    account, amount, user_code = fields
    form = f"utility_acc_no={account}&amount={amount}&user_code={user_code}"
    path, body, media_type = {
        "json": (
            PAYBILL,
            f'{{"utility_acc_no":"{account}","amount":{amount},"user_code":{user_code}}}',
            JSON,
        ),
        "form": ("/ekoapi/v1/billpayments/paybill", form, FORM),
        "query": (f"{PAYBILL}?{form}", '{"sender_name":"x"}', JSON),
    }[where]
    status, answer = await eko.post(path, body, media_type, headers={"request_hash": request_hash})
    assert (status, answer["status"]) == (200, 0)
    assert answer["data"]["tx_status"] == 0


@pytest.mark.parametrize(("amount", "request_hash"), AEPS_VECTORS)
async def test_known_aeps_hashes_are_accepted(eko: Eko, amount: str, request_hash: str) -> None:
    body = f"aadhar={SANDBOX_AADHAAR_CIPHERTEXT}&amount={amount}&user_code=20810200"
    status, _ = await eko.post(AEPS, body, FORM, headers={"request_hash": request_hash})
    assert status == 200


async def test_an_amount_keeps_its_spelling(eko: Eko) -> None:
    body = '{"utility_acc_no":"1","amount":50.0,"user_code":"2"}'
    assert (await eko.post(PAYBILL, body, covers="1502"))[0] == 403
    assert (await eko.post(PAYBILL, body, covers="150.02"))[0] == 200


@pytest.mark.parametrize(
    ("covers", "number"), [(None, 2487), ("", 2484), ("1" + "5" + SANDBOX_USER_CODE, 2484)]
)
async def test_a_payment_without_its_hash_is_refused_and_not_by_401(
    eko: Eko, stand_ins: StandIns, covers: str | None, number: int
) -> None:
    body = '{"utility_acc_no":"1","amount":6}'
    status, answer = await eko.post(PAYBILL, body, covers=covers)
    assert (status, answer["status"]) == (403, number)
    assert stand_ins.eko.payments == []


@pytest.mark.parametrize("body", ['{"amount":6}', "[]", "{", '{"utility_acc_no":null}'])
async def test_a_hash_over_absent_fields_is_refused(eko: Eko, body: str) -> None:
    assert (await eko.post(PAYBILL, body, covers="x"))[0] == 403


async def test_v3_bill_payment_may_go_without_but_not_with_a_wrong_hash(eko: Eko) -> None:
    body = '{"utility_acc_no":"1","amount":"6"}'
    assert (await eko.post(BBPS, body))[0] == 200
    assert (await eko.post(BBPS, body, covers=f"16{SANDBOX_USER_CODE}"))[0] == 200
    assert (await eko.post(BBPS, body, covers="16"))[0] == 403


async def test_the_aadhaar_number_must_not_arrive(eko: Eko) -> None:
    body = f"aadhar={SANDBOX_AADHAAR_CIPHERTEXT}"
    covers = f"{SANDBOX_AADHAAR}0{SANDBOX_USER_CODE}"
    assert (await eko.post(AEPS, body, FORM, covers=covers))[0] == 200
    leaked = {"X-Eko-Aadhaar": SANDBOX_AADHAAR}
    status, answer = await eko.post(AEPS, body, FORM, covers=covers, headers=leaked)
    assert status == 400
    assert SANDBOX_AADHAAR not in str(answer)
    assert (await eko.post(AEPS, "aadhar=unknown", FORM, covers=covers))[0] == 403


@pytest.mark.parametrize("media_type", ["text/plain", "application/octet-stream"])
async def test_a_body_of_another_type_is_refused(eko: Eko, media_type: str) -> None:
    status, answer = await eko.post("/ekoapi/v3/x", b"{}", media_type)
    assert (status, answer["status"]) == (415, 415)


async def test_a_payment_made_twice_is_seen(eko: Eko, stand_ins: StandIns) -> None:
    body = '{"client_ref_id":"ref-1","amount":"50.0"}'
    _, first = await eko.post(BBPS, body)
    await eko.post(BBPS, body)
    await eko.post("/ekoapi/v3/customer/payment/dmt-fino", "{}")
    await eko.post("/ekoapi/v1/agent/user_code:7/settlement", "amount=9", FORM)
    await eko.send("GET", "/ekoapi/v3/customer/payment/bbps")
    seen = [(p.client_ref_id, p.amount, p.duplicate) for p in stand_ins.eko.payments]
    assert seen == [
        ("ref-1", "50.0", False),
        ("ref-1", "50.0", True),
        (None, None, False),
        (None, "9", False),
    ]
    assert first["data"]["tid"] == stand_ins.eko.payments[0].tid


@pytest.mark.parametrize(
    "path",
    [
        "/ekoapi/v3/tools/reference/transaction?client_ref_id=ref-1",
        "/ekoapi/v3/tools/reference/transaction?tid={tid}",
        "/ekoapi/v2/transactions/client_reference_id:ref-1",
        "/ekoapi/v1/transactions/{tid}",
    ],
)
async def test_an_inquiry_finds_the_payment(eko: Eko, path: str) -> None:
    _, paid = await eko.post(BBPS, '{"client_ref_id":"ref-1","amount":50}')
    _, found = await eko.send("GET", path.format(tid=paid["data"]["tid"]))
    assert found["status"] == 0
    assert found["data"] == {
        "tx_status": 0,
        "tid": paid["data"]["tid"],
        "client_ref_id": "ref-1",
        "amount": "50",
    }


@pytest.mark.parametrize("query", ["client_ref_id=no", "tid=no", ""])
async def test_an_inquiry_that_finds_nothing_is_a_failure_with_200(eko: Eko, query: str) -> None:
    status, answer = await eko.send("GET", f"/ekoapi/v3/tools/reference/transaction?{query}")
    assert status == 200
    assert answer["status"] != 0


async def test_parts_of_an_upload_are_counted(eko: Eko) -> None:
    scan = b"\x00\r\n--" * 300_000
    form = FormData()
    form.add_field("form-data", '{"user_code":"1"}')
    form.add_field("pan_card", io.BytesIO(scan), filename="pan.png")
    status, answer = await eko.send("PUT", "/ekoapi/v3/admin/upload", form)
    assert status == 200
    told = [(part["name"], part["filename"], part["size"]) for part in answer["data"]["parts"]]
    assert told == [("form-data", None, 17), ("pan_card", "pan.png", len(scan))]
    assert answer["data"]["parts"][1]["sha256"] == hashlib.sha256(scan).hexdigest()
