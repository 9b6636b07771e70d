"""Eko's signatures, against known answers and against requests that could be read two ways."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.credentials.eko import EkoSignatures
from proxy.credentials.stamps import Stamps
from proxy.errors import ProxyError
from tests.credentials.support import (
    ACCESS_KEY,
    AEPS,
    BBPS,
    BBPS_V3,
    DEVELOPER_KEY,
    FORM,
    JSON,
    eko,
    eko_settings,
    lines_of,
    outgoing,
)
from tests.support import ManualClock

# access key, timestamp, secret-key: the first three are published by Eko, the others were
# computed in Python, Java and Node.
SECRET_KEYS = [
    (
        "f74c50a1-f705-4634-9cda-30a477df91b7",
        1516705204593,
        "MC6dKW278tBef+AuqL/5rW2K3WgOegF0ZHLW/FriZQw=",
    ),
    ("TEST_ACCESS_KEY_DO_NOT_USE", 1700000000000, "u30ak/iOGwKCaspqCeiYng8fd98QDx7kF3DBBOadQHk="),
    ("test-access-key-123", 1700000000000, "88lqTf9ew69XbVbeczjxVL8/B4vibfp1MvTi1mIj2Xo="),
    (ACCESS_KEY, 1700000000000, "qIir8tILHtqxO1Mu3/fC3pVElIa0oIxXMRDUP0463Bc="),
    (ACCESS_KEY, 1516705204593, "FOoQl9IrqxsvErSHbIbHqfzDA/vvcSVdKxoY9uUaHmM="),
    (
        "f46fd59b-bc90-41e2-9a52-efb5c0778d50",
        1767225600000,
        "Ftj3kBdJslxjdplodPy/4NyHG/jnMfXuDG/udeyJInA=",
    ),
]
# What the key yields without its base64 step, at 1700000000000: must never be sent.
WRONG_SECRET_KEY = "ADpYKsHy4BKM7jVMJAdkWUJqdqvf0wZwStJf8yC2Lmg="

# utility_acc_no or Aadhaar number, amount, user_code, request_hash; all at 1700000000000.
BBPS_HASHES = [
    ("151627591", "50", "20810200", "TO65c2+vieXFx4+yDLN50NoAHe1fnfyWfIAB2NJkiNc="),
    ("766851234", "100", "32221002", "kub2lUvgAYPCbvIO+19jS5hfSUOOGrvS2fkw03RmwZk="),
]
AEPS_HASHES = [
    ("123412341234", "100", "20810200", "6wPCUMuVanQhjVtFBV8n8TKeCWZlApbdgbBRD+DcPko="),
    ("123412341234", "0", "20810200", "2UNg2LobVA1dSxLQ64lQsByy/2c2wjU/YA65vrgmsQc="),
]
ACCOUNT, AMOUNT, USER_CODE, HASH = BBPS_HASHES[0]


async def request_hash(
    path: str, body: bytes | None, credential: EkoSignatures | None = None, **how: Any
) -> str | None:
    subject = credential or eko()
    return lines_of(await subject.authorise(outgoing(path, body, **how))).get("request_hash")


async def refusal(path: str, body: bytes | None, **how: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await eko().authorise(outgoing(path, body, **how))
    return caught.value


def bbps(**changes: Any) -> bytes:
    fields = {"utility_acc_no": ACCOUNT, "amount": AMOUNT, "user_code": USER_CODE} | changes
    return json.dumps({name: value for name, value in fields.items() if value != ""}).encode()


# Known answers.


@pytest.mark.parametrize(("access_key", "at", "signature"), SECRET_KEYS)
async def test_every_request_carries_the_three_known_fields(
    access_key: str, at: int, signature: str
) -> None:
    authorization = await eko(at=at, access_key=access_key).authorise(outgoing(method="GET"))
    assert lines_of(authorization) == {
        "developer_key": DEVELOPER_KEY,
        "secret-key": signature,
        "secret-key-timestamp": str(at),
    }


async def test_the_key_is_never_used_without_its_base64_step() -> None:
    lines = lines_of(await eko().authorise(outgoing()))
    assert lines["secret-key-timestamp"] == "1700000000000"
    assert lines["secret-key"] != WRONG_SECRET_KEY


@pytest.mark.parametrize(("account", "amount", "user_code", "signature"), BBPS_HASHES)
@pytest.mark.parametrize("path", ["/ekoapi/v1/billpayments/paybill", BBPS, BBPS_V3])
async def test_bill_payments_carry_the_known_hash_however_their_fields_come(
    path: str, account: str, amount: str, user_code: str, signature: str
) -> None:
    texts = {"utility_acc_no": account, "amount": amount, "user_code": user_code}
    form = "&".join(f"{name}={value}" for name, value in texts.items())
    numbers = json.dumps(texts | {"amount": int(amount)})
    assert await request_hash(path, json.dumps(texts).encode()) == signature
    assert await request_hash(path, numbers.encode()) == signature
    assert await request_hash(path, numbers.encode(), content_type=None) == signature
    assert await request_hash(path, form.encode(), content_type=FORM) == signature
    assert await request_hash(path, None, query=form) == signature
    assert await request_hash(path, b"{}", query=form) == signature


@pytest.mark.parametrize(("aadhaar", "amount", "user_code", "signature"), AEPS_HASHES)
async def test_aeps_is_hashed_over_the_number_in_the_header(
    aadhaar: str, amount: str, user_code: str, signature: str
) -> None:
    body = {"aadhar": "encrypted", "amount": int(amount), "user_code": user_code}
    number = aadhaar.encode()
    assert await request_hash(AEPS, json.dumps(body).encode(), x_eko_aadhaar=number) == signature
    assert eko().consumed == {"x-eko-aadhaar"}


async def test_fields_may_come_some_in_the_query_and_some_in_the_body() -> None:
    found = await request_hash(BBPS, bbps(user_code=""), query=f"user_code={USER_CODE}&a=b")
    assert found == HASH


async def test_one_stamp_serves_both_signatures() -> None:
    ticking = count(1_700_000_000_000)

    class Counting(Stamps):
        async def next(self) -> int:
            return next(ticking)

    stamps = Counting(ManualClock())
    credential = EkoSignatures(eko_settings(), lambda _: stamps)
    first = lines_of(await credential.authorise(outgoing(BBPS, bbps())))
    assert (first["secret-key-timestamp"], first["request_hash"]) == ("1700000000000", HASH)
    second = lines_of(await credential.authorise(outgoing(BBPS, bbps())))
    assert second["secret-key-timestamp"] == "1700000000001"
    assert second["request_hash"] != HASH
    assert second["secret-key"] != first["secret-key"]


# The literal text.


@pytest.mark.parametrize(
    "amount",
    [
        "50",
        "50.0",
        "50.00",
        "1e2",
        "1E+2",
        "-0",
        "0.10",
        "123456789012345678901234567890",
        "5" * 5000,
    ],
)
async def test_a_json_number_is_signed_as_it_is_spelled(amount: str) -> None:
    body = f'{{"utility_acc_no":"1", "amount" : {amount} ,"user_code":"2"}}'.encode()
    as_text = json.dumps({"utility_acc_no": "1", "amount": amount, "user_code": "2"}).encode()
    assert await request_hash(BBPS, body) == await request_hash(BBPS, as_text)
    other = json.dumps({"utility_acc_no": "1", "amount": "50.000", "user_code": "2"}).encode()
    assert await request_hash(BBPS, body) != await request_hash(BBPS, other)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
async def test_any_json_number_keeps_its_spelling(number: float) -> None:
    spelled = json.dumps(number)
    assert await request_hash(BBPS, bbps(amount=number)) == await request_hash(
        BBPS, bbps(amount=spelled)
    )


async def test_escapes_in_a_json_text_are_resolved() -> None:
    escaped = (
        rb'{"utility_acc_no":"\u0031\u0035\u0031627591","amount":"5\u0030","user_code":"20810200"}'
    )
    assert await request_hash(BBPS, escaped) == HASH
    accented = '{"utility_acc_no":"é/\\"","amount":"1","user_code":"2"}'.encode()
    as_form = b"utility_acc_no=%C3%A9/%22&amount=1&user_code=2"
    assert await request_hash(BBPS, accented) == await request_hash(
        BBPS, as_form, content_type=FORM
    )


async def test_a_form_is_decoded_as_forms_are() -> None:
    form = b"utility_acc_no=15162%37591&amount=5%30&user_code=+20810200"
    assert await request_hash(BBPS, form, content_type=FORM + b"; charset=utf-8") != HASH
    form = form.replace(b"+", b"")
    assert await request_hash(BBPS, form, content_type=b"Application/X-WWW-Form-URLencoded") == HASH


# What could be read two ways.


@pytest.mark.parametrize(
    "body",
    [
        b'{"utility_acc_no":"1","amount":"50","amount":"500","user_code":"2"}',
        b'{"utility_acc_no":"1","amount":50,"amount":50.0,"user_code":"2"}',
        b'{"utility_acc_no":"1","amount":"50","amount":null,"user_code":"2"}',
        b'{"utility_acc_no":"1","amount":{"x":1},"amount":"50","user_code":"2"}',
    ],
)
async def test_a_signed_field_that_stands_twice_in_the_body_is_refused(body: bytes) -> None:
    error = await refusal(BBPS, body)
    assert (error.code, error.status) == ("bad_request", 400)


@pytest.mark.parametrize("content_type", [JSON, FORM])
async def test_a_body_and_a_query_that_disagree_are_refused(content_type: bytes) -> None:
    body = bbps() if content_type == JSON else b"utility_acc_no=1&amount=50&user_code=2"
    error = await refusal(BBPS, body, query="amount=51", content_type=content_type)
    assert error.code == "bad_request"


async def test_a_body_and_a_query_that_agree_are_signed() -> None:
    assert await request_hash(BBPS, bbps(), query=f"amount={AMOUNT}&user_code={USER_CODE}") == HASH


async def test_a_field_that_is_not_signed_may_stand_twice() -> None:
    body = bbps()[:-1] + b', "note": 1, "note": 2}'
    assert await request_hash(BBPS, body, query="note=3&note=4") == HASH


@pytest.mark.parametrize("name", ["utility_acc_no", "amount", "user_code"])
@pytest.mark.parametrize("text", [r'"\ud800"', r'"5\udfff"'])
async def test_a_text_that_is_no_unicode_is_refused_not_stumbled_over(name: str, text: str) -> None:
    members = {"utility_acc_no": '"1"', "amount": '"2"', "user_code": '"3"'} | {name: text}
    body = "{" + ",".join(f'"{key}":{value}' for key, value in members.items()) + "}"
    assert (await refusal(BBPS, body.encode())).code == "bad_request"


async def test_a_query_of_raw_bytes_is_refused_not_stumbled_over() -> None:
    error = await refusal(BBPS, bbps(amount=""), query="amount=\udcff")
    assert error.code == "bad_request"


# What is missing.


@pytest.mark.parametrize("name", ["utility_acc_no", "amount", "user_code"])
@pytest.mark.parametrize("value", ["", None, True, False, [], ["50"], {"a": 1}])
async def test_a_call_that_lacks_a_signed_field_is_not_sent(name: str, value: Any) -> None:
    error = await refusal(BBPS, bbps(**{name: value}))
    assert (error.code, error.status) == ("signing_input_missing", 422)
    assert repr(name) in error.detail


@pytest.mark.parametrize(
    "body",
    [
        *(None, b"", b"null", b"[]", b'"text"', b"12", b"{", b"\xff\xfe", b'{"amount":"\xff"}'),
        *(b'{"amount":NaN}', b'{"amount":-Infinity}', b"{" * 100_000, b'{"a":' * 100_000),
        *(b"\xef\xbb\xbf{}", bbps().decode().encode("utf-16"), b"[" * 100_000, b"--x\r\n"),
    ],
)
async def test_a_body_that_cannot_be_read_is_not_signed(body: bytes | None) -> None:
    assert (await refusal(BBPS, body)).code == "signing_input_missing"


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
async def test_what_is_no_json_number_is_not_signed(amount: str) -> None:
    body = bbps(amount=1).replace(b": 1,", f": {amount},".encode())
    assert amount.encode() in body
    assert (await refusal(BBPS, body)).code == "signing_input_missing"


async def test_a_configured_user_code_stands_in_and_the_requests_own_wins() -> None:
    configured = eko(user_code=USER_CODE)
    assert await request_hash(BBPS, bbps(user_code=""), configured) == HASH
    assert await request_hash(BBPS, bbps(), eko(user_code="99999999")) == HASH


async def test_the_v3_bill_payment_goes_without_hash_where_no_user_code_is_known() -> None:
    assert await request_hash(BBPS_V3, bbps(user_code="")) is None
    assert await request_hash(BBPS_V3, b"") is None
    assert await request_hash(BBPS_V3, bbps(user_code=""), eko(user_code=USER_CODE)) == HASH


async def test_aeps_without_the_header_names_the_header_in_its_refusal() -> None:
    error = await refusal(AEPS, b'{"aadhar":"encrypted","amount":"0","user_code":"1"}')
    assert error.code == "signing_input_missing"
    assert "X-Eko-Aadhaar" in error.detail


@pytest.mark.parametrize("content_type", [JSON, FORM])
async def test_no_refusal_quotes_what_was_sent(content_type: bytes) -> None:
    canary = b'{"amount":"canary-1","amount":"canary-2","user_code":"canary-3"}'
    if content_type == FORM:
        canary = b"amount=canary-1&amount=canary-2"
    error = await refusal(BBPS, canary, query="user_code=canary-4", content_type=content_type)
    assert error.code == "bad_request"
    assert "canary" not in error.detail


# Floods.


async def test_a_form_or_query_of_too_many_fields_is_refused() -> None:
    flood = "&".join(f"f{number}=1" for number in range(1001))
    for how in ({"query": flood}, {"content_type": FORM}):
        body = flood.encode() if "content_type" in how else bbps()
        assert (await refusal(BBPS, body, **how)).code == "bad_request"


# Which calls.


@pytest.mark.parametrize(
    "path",
    [
        *(BBPS, BBPS.upper(), f"{BBPS}/", "/ekoicici/v1/BillPayments/paybill", "/v2/aeps"),
        *("/ekoapi/V3/customer/payment/bbps/", AEPS, "/ekoicici/v2/aeps/"),
    ],
)
def test_case_and_a_trailing_slash_do_not_hide_a_call_that_is_signed(path: str) -> None:
    assert eko().needs_body("POST", path)
    assert eko().is_financial("POST", path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", BBPS),
        ("PUT", AEPS),
        ("POST", "/ekoapi/v3/aeps"),
        ("POST", f"{BBPS}/bill"),
        ("POST", "/ekoapi/v3/customer/payment/dmt-fino"),
    ],
)
async def test_other_calls_carry_no_hash_and_their_bodies_are_not_read(
    method: str, path: str
) -> None:
    assert not eko().needs_body(method, path)
    assert await request_hash(path, None, method=method) is None


@pytest.mark.parametrize(
    "path",
    [
        "/ekoapi/v3/customer/payment/dmt-fino",
        "/ekoapi/v3/customer/payment/dmt-levin/",
        "/EKOICICI/V3/USER/PAYMENT/AEPS/SETTLEMENT",
        "/ekoapi/v3/customer/payment/refund/2147000001",
        "/ekoapi/v3/customer/collection/aeps-fingpay/cash-withdrawl/9962981729",
        "/ekoapi/v1/transactions",
        "/ekoapi/v1/agent/user_code:20810200/settlement",
        "/ekoapi/v2/upi/pay",
    ],
)
def test_calls_that_move_money_are_known_as_such(path: str) -> None:
    assert eko().is_financial("POST", path)
    assert not eko().is_financial("GET", path)


def test_configured_lists_replace_the_built_in_ones() -> None:
    rule = {"match": "POST /pay", "fields": ["sum", {"header": "X_Extra"}]}
    credential = eko(financial=["POST /pay"], request_hash=[rule])
    assert credential.is_financial("POST", "/PAY/")
    assert not credential.is_financial("POST", BBPS)
    assert credential.needs_body("POST", "/pay")
    assert not credential.needs_body("POST", BBPS)
    assert credential.consumed == {"x-extra", "x-eko-aadhaar"}  # that number never travels


def test_an_emptied_list_means_none() -> None:
    credential = eko(financial=[], request_hash=[])
    assert not credential.is_financial("POST", BBPS)
    assert not credential.needs_body("POST", BBPS)


@pytest.mark.parametrize("field", ["", 5, {"header": "a b"}, {"header": "A", "x": 1}, None, []])
def test_a_rule_takes_names_and_header_names_alone(field: object) -> None:
    with pytest.raises(ValidationError):
        eko_settings(request_hash=[{"match": "POST /a", "fields": [field]}])


# Once more.


@pytest.mark.parametrize("number", range(2482, 2489))
async def test_only_a_refusal_at_the_door_is_signed_again(number: int) -> None:
    ticking = count(1_700_000_000_000)

    class Counting(Stamps):
        async def next(self) -> int:
            return next(ticking)

    stamps = Counting(ManualClock())
    credential = EkoSignatures(eko_settings(), lambda _: stamps)
    request = outgoing(BBPS, bbps())
    first = await credential.authorise(request)
    answer = json.dumps({"status": number, "message": "no"}).encode()
    second = await credential.again(request, first, answer)
    if 2483 <= number <= 2487:
        assert second is not None
        fields = lines_of(second)
        assert fields["secret-key-timestamp"] == "1700000000001"
        assert fields["request_hash"] != HASH
    else:
        assert second is None


# The preview.


async def test_a_preview_of_nothing_is_what_a_plain_call_carries() -> None:
    assert lines_of(await eko().preview({}))["secret-key"] == SECRET_KEYS[3][2]
    assert "request_hash" not in lines_of(await eko().preview({}))


async def test_a_preview_signs_the_fields_of_the_rule_that_has_them() -> None:
    texts = {"amount": AMOUNT, "utility_acc_no": ACCOUNT, "user_code": USER_CODE}
    assert lines_of(await eko().preview(texts))["request_hash"] == HASH
    del texts["user_code"]
    assert lines_of(await eko(user_code=USER_CODE).preview(texts))["request_hash"] == HASH
    aadhaar = {"x-eko-aadhaar": "123412341234", "amount": "0", "user_code": USER_CODE}
    assert lines_of(await eko().preview(aadhaar))["request_hash"] == AEPS_HASHES[1][3]


async def test_a_preview_needs_no_configured_user_code_that_its_rule_does_not_sign() -> None:
    rule = {"match": "POST /pay", "fields": ["amount"]}
    with_code = eko(user_code=USER_CODE, request_hash=[rule])
    without = eko(request_hash=[rule])
    expected = lines_of(await without.preview({"amount": "5"}))["request_hash"]
    assert lines_of(await with_code.preview({"amount": "5"}))["request_hash"] == expected


@pytest.mark.parametrize("fields", [{"amount": "5"}, {"amount": "5", "nonsense": "canary-1"}])
async def test_a_preview_of_other_fields_says_which_there_are(fields: dict[str, str]) -> None:
    with pytest.raises(ProxyError) as caught:
        await eko().preview(fields)
    assert "utility_acc_no, amount, user_code" in caught.value.detail
    assert "canary" not in caught.value.detail


# Secrets.


async def test_no_secret_is_in_any_repr() -> None:
    credential = eko(access_key="canary-access-key", user_code="1")
    body = b'{"utility_acc_no":"canary-account","amount":"1"}'
    request = outgoing(BBPS, body, x_eko_aadhaar=b"canary-aadhaar", query="a=canary-query")
    signature = await credential.authorise(request)
    for shown in (repr(credential), repr(signature), str(signature), repr(request)):
        assert "canary" not in shown
        assert lines_of(signature)["secret-key"] not in shown


async def test_new_secrets_are_used_after_a_rekey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "test-access-key-123")
    credential = eko(access_key={"env": "SOME_KEY"})
    assert lines_of(await credential.authorise(outgoing()))["secret-key"] == SECRET_KEYS[2][2]
    credential._settings.access_key._value = ACCESS_KEY
    credential.rekey()
    assert lines_of(await credential.authorise(outgoing()))["secret-key"] == SECRET_KEYS[3][2]


def test_a_body_without_type_is_declared_as_json() -> None:
    assert EkoSignatures.content_type == b"application/json"
    assert EkoSignatures.refusals == {401}
