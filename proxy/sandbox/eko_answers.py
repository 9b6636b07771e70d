"""Eko behind its door: payments that are recorded, inquiries that find them, echoes otherwise."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxy.sandbox.eko_hash import literal_fields
from proxy.sandbox.wire import Call

_FIRST_TID: Final = 1_000_000_001
_NOT_FOUND: Final = 1  # any status but 0 is a failure; Eko's number for this one is not known here
_MONEY_V3: Final = (
    "/customer/collection/aeps-fingpay/cash-withdrawl/[^/]+",
    "/customer/payment/bbps",
    "/customer/payment/dmt-fino",
    "/customer/payment/dmt-levin",
    "/customer/payment/refund/[^/]+",
    "/user/payment/aeps/settlement",
)
_MONEY_OLDER: Final = (
    "/billpayments/paybill",
    "/aeps",
    "/transactions",
    "/agent/user_code:[^/]+/settlement",
    ".*fund-?transfer.*",
    ".*/upi/pay.*",
)
_MONEY: Final = re.compile(f"/v3(?:{'|'.join(_MONEY_V3)})|/v[12](?:{'|'.join(_MONEY_OLDER)})")
_INQUIRY: Final = re.compile("/v3/tools/reference/transaction|/v[12]/transactions/([^/]+)")


@dataclass(frozen=True, slots=True)
class Payment:
    """One movement of money; `amount` is the literal text of the request.

    `duplicate` tells that its client_ref_id was there before: the second debit.
    """

    tid: str
    target: str
    client_ref_id: str | None
    amount: str | None
    duplicate: bool


class EkoAnswers:
    """Carries out calls that passed the door; `payments` in the order of their arrival."""

    def __init__(self) -> None:
        self.payments: list[Payment] = []
        self._first_by_ref: dict[str, Payment] = {}

    def clear(self) -> None:
        """Forget all payments."""
        self.payments.clear()
        self._first_by_ref.clear()

    def answer(self, call: Call, operation: str) -> dict[str, Any]:
        """Carry the call out and return the envelope; `operation` is the path from `/v…` on."""
        if call.method == "POST" and _MONEY.fullmatch(operation):
            return self._pay(call)
        inquiry = _INQUIRY.fullmatch(operation) if call.method == "GET" else None
        if inquiry:
            return self._inquire(inquiry[1] or "", call.query)
        return envelope(0, "Success", _echo(call))

    def _pay(self, call: Call) -> dict[str, Any]:
        fields = literal_fields(call)
        reference = fields.get("client_ref_id")
        payment = Payment(
            tid=str(_FIRST_TID + len(self.payments)),
            target=call.target,
            client_ref_id=reference,
            amount=fields.get("amount"),
            duplicate=reference in self._first_by_ref,
        )
        self.payments.append(payment)
        if reference is not None:
            self._first_by_ref.setdefault(reference, payment)
        return envelope(0, "Transaction successful", _told(payment) | _echo(call))

    def _inquire(self, segment: str, query: dict[str, str]) -> dict[str, Any]:
        """Look up by `client_ref_id` or `tid`; v1 and v2 have either in the path's last segment."""
        kind, colon, value = segment.rpartition(":")
        by_reference = kind.startswith("client_ref") if colon else "client_ref_id" in query
        if by_reference:
            payment = self._first_by_ref.get(value or query["client_ref_id"])
        else:
            payment = self._by_tid(value or query.get("tid", ""))
        if payment is None:
            return envelope(_NOT_FOUND, "No such transaction")
        return envelope(0, "Success", _told(payment))

    def _by_tid(self, tid: str) -> Payment | None:
        return next((payment for payment in self.payments if payment.tid == tid), None)


def envelope(status: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Wrap an answer as Eko does; `status` 0 is success, whatever the HTTP status."""
    kind = 0 if status == 0 else -1
    answer: dict[str, Any] = {
        "status": status,
        "response_status_id": kind,
        "response_type_id": kind,
        "message": message,
    }
    return answer if data is None else answer | {"data": data}


def _told(payment: Payment) -> dict[str, Any]:
    return {
        "tx_status": 0,
        "tid": payment.tid,
        "client_ref_id": payment.client_ref_id,
        "amount": payment.amount,
    }


def _echo(call: Call) -> dict[str, Any]:
    echo: dict[str, Any] = {
        "sandbox": "eko",
        "method": call.method,
        "target": call.target,
        "received_bytes": call.body.length,
        "sha256": call.body.sha256,
    }
    if call.media_type == "multipart/form-data":
        echo["parts"] = [asdict(part) for part in call.body.parts]
    return echo
