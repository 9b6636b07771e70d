"""One session of Eko's published Python client: `eko_client.py PROXY VENDOR FILE FILE FILE`.

PROXY and VENDOR are origins; VENDOR, the stand-in, is only asked to lose one answer. The FILEs are
uploaded. Prints one JSON object: what each call gave.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from eps_sdk import EpsClient, EpsIndeterminateError  # type: ignore[import-untyped]

PAY = {
    "phone_operator_code": "190",
    "utility_acc_no": "151627591",
    "confirmation_mobile_no": "9999999999",
    "sender_name": "Asha",
    "category": 5,
    "amount": 50.0,
    "source_ip": "192.0.2.7",
}
AGENT = {
    "user_code": "20810200",
    "modelname": "Morpho",
    "devicenumber": "SER-1",
    "account": "1234567890",
    "ifsc": "KKBK0000261",
    "shop_type": "5411",
    "office_address": {"line": "1, Main Street", "city": "Pune"},
    "address_as_per_proof": {"line": "2, Main Street", "city": "Pune"},
    "aadhar": "123412341234",
    "latlong": "18.52,73.85",
}


def session(proxy: str, vendor: str, *files: str) -> dict[str, Any]:
    client = EpsClient(
        "dummy-developer-key", "dummy-access-key", "sandbox", initiator_id="9962981729", retries=0
    )
    client.base_url = f"{proxy}/ekoapi/v3"
    pictures = dict(zip(("pan_card", "aadhar_front", "aadhar_back"), files, strict=True))
    return {
        "operators": client.call("bbps-get-operators", {"category": 5}),
        "paid": client.call("bbps-pay-bill", PAY | {"client_ref_id": "paid-1"}),
        "inquiry": client.call("transaction-inquiry", {"client_ref_id": "paid-1"}),
        "activated": client.call("activate-aeps-fingpay", AGENT | pictures),
        "pan": client.call(
            "pan-lite", {"pan_number": "ABCDE1234F", "name": "Asha", "dob": "1990-01-31"}
        ),
        "banks": client.call("get-banks"),
        "lost": lost_payment(client, vendor),
    }


def lost_payment(client: EpsClient, vendor: str) -> dict[str, Any]:
    """Pay once more; the vendor carries it out, and breaks the connection instead of answering."""
    fault = {
        "match": "POST /ekoapi/v3/customer/payment/bbps",
        "kind": "reset_before_head",
        "after_processing": True,
    }
    request = urllib.request.Request(  # noqa: S310 - the stand-in's own http origin
        f"{vendor}/_sandbox/faults", data=json.dumps(fault).encode(), method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - as above
    try:
        client.call("bbps-pay-bill", PAY | {"client_ref_id": "lost-1"})
    except EpsIndeterminateError as error:
        return {
            "status": error.status,
            "problem": getattr(error.__cause__, "body", None),
            "client_ref_id": error.client_ref_id,
            "status_check": error.status_check,
        }
    return {}


if __name__ == "__main__":
    json.dump(session(*sys.argv[1:]), sys.stdout)
