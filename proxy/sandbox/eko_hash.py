"""Eko's second signature: `request_hash` over the fields of a payment, by their literal text."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from proxy.sandbox.dummies import SANDBOX_USER_CODE
from proxy.sandbox.eko_auth import HEADER_MISSING, WRONG_SECRET_KEY, EkoRefusedError, same, sign
from proxy.sandbox.wire import Call, text

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class _Rule:
    path: re.Pattern[str]
    fields: tuple[str, ...]
    required: bool


_BASE: Final = "/(?:ekoapi|ekoicici)"
_BILL: Final = ("utility_acc_no", "amount", "user_code")
_RULES: Final = (
    _Rule(re.compile(f"{_BASE}/v[12]/billpayments/paybill"), _BILL, required=True),
    # One document asks for it, current clients leave it out: verified where it comes.
    _Rule(re.compile(f"{_BASE}/v3/customer/payment/bbps"), _BILL, required=False),
    _Rule(re.compile(f"{_BASE}/v2/aeps"), ("aadhaar", "amount", "user_code"), required=True),
)


def check_request_hash(
    call: Call, access_key: str, timestamp: str, aadhaar_of: "Mapping[str, str]"
) -> None:
    """Refuse a payment whose request_hash is wrong, or missing where it is needed.

    Eko documents no number for this. The sandbox answers HTTP 403 with 2484 or 2487: not 401,
    which asks the caller to sign again.
    """
    rule = next((r for r in _RULES if call.method == "POST" and r.path.fullmatch(call.path)), None)
    if rule is None:
        return
    fields = literal_fields(call)
    if "aadhaar" in rule.fields:
        fields["aadhaar"] = _aadhaar(call, fields.get("aadhar", ""), aadhaar_of)
        fields.setdefault("amount", "0")  # balance and mini statement move nothing
    fields.setdefault("user_code", SANDBOX_USER_CODE)
    given = "".join(call.values("request_hash"))
    if not given:
        if rule.required:
            raise EkoRefusedError(403, HEADER_MISSING, "request_hash is missing")
        return
    absent = [name for name in rule.fields if name not in fields]
    if absent:
        raise EkoRefusedError(403, WRONG_SECRET_KEY, f"request_hash covers absent {absent[0]}")
    message = timestamp + "".join(fields[name] for name in rule.fields)
    if not same(given, sign(access_key, message)):
        raise EkoRefusedError(403, WRONG_SECRET_KEY, "Wrong request_hash")


def literal_fields(call: Call) -> dict[str, str]:
    """Collect the fields of query and body, the body's winning; JSON numbers keep their spelling.

    Nested values, null and booleans are left out, and so is a body too long to be kept.
    """
    return call.query | _body_fields(call)


def _body_fields(call: Call) -> dict[str, str]:
    body = call.body.kept or b""
    if call.media_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if call.media_type != "application/json":
        return {}
    try:
        decoded = json.loads(body, parse_float=str, parse_int=str, parse_constant=str)
    except ValueError:
        return {}
    if not isinstance(decoded, dict):
        return {}
    return {name: value for name, value in decoded.items() if isinstance(value, str)}


def _aadhaar(call: Call, ciphertext: str, aadhaar_of: "Mapping[str, str]") -> str:
    """Return the plaintext number, which must not have come along in a header."""
    plaintext = aadhaar_of.get(ciphertext)
    if plaintext is None:
        raise EkoRefusedError(403, WRONG_SECRET_KEY, "aadhar cannot be decrypted")
    if any(plaintext in text(value) for _, value in call.headers):
        raise EkoRefusedError(400, 400, "a header carries the plaintext aadhaar number")
    return plaintext
