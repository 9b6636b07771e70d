"""What may be sent twice, or look whole though it is not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from proxy import sandbox
from proxy.selftest.case import case, expect, get, request

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground

_PAYBILL: Final = "/ekoapi/v2/billpayments/paybill"
_KEPT: Final = 1 << 20  # bytes of a body that the proxy keeps to send it again


def _payment(number: int) -> bytes:
    body = json.dumps(
        {
            "utility_acc_no": "151627591",
            "amount": 50,
            "user_code": sandbox.SANDBOX_USER_CODE,
            "client_ref_id": f"selftest-{number}",
            "initiator_id": sandbox.SANDBOX_INITIATOR_ID,
        }
    ).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return request("POST", _PAYBILL, *lines, body=body)


def _once(method: str) -> Case:
    """Expect a request to be sent once, though its kept-alive connection closes unanswered."""

    @case(
        f"{method.lower()}-once",
        f"A {method} on a kept connection that closes without an answer.",
        "502 upstream_closed; it arrived once",
        threat=37,
    )
    async def attack(ground: Ground) -> str:
        watch = ground.watch()
        lines = ("X-Play: close", "Content-Length: 2")
        answer = await ground.call("plain", request(method, "/x", *lines, body=b"hi"))
        arrived = len(watch.arrived())
        expect(arrived == 1, f"it arrived {arrived} times")
        expect((answer.status, answer.code) == (502, "upstream_closed"), answer.seen)
        return f"{answer.seen}; once"

    return attack


@case(
    "payment-lost",
    "A payment whose answer is lost, in three ways.",
    "outcome_unknown; it was made once",
    threat=37,
    route="eko",
)
async def _payment_lost(ground: Ground) -> str:
    eko = ground.stand_ins.eko
    kinds: list[sandbox.Fault] = [
        sandbox.Fault(match=f"POST {_PAYBILL}", kind="close_before_head", after_processing=True),
        sandbox.Fault(match=f"POST {_PAYBILL}", kind="reset_before_head", after_processing=True),
        sandbox.Fault(match=f"POST {_PAYBILL}", kind="garbage", after_processing=True),
    ]
    for number, fault in enumerate(kinds):
        eko.faults.add(fault)
        before = eko.arrived
        answer = await ground.call("eko", _payment(number))
        arrived = eko.arrived - before
        expect(arrived == 1, f"it arrived {arrived} times")
        expect((answer.status, answer.code) == (502, "outcome_unknown"), answer.seen)
        expect(b"client_ref_id" in answer.body, "nobody is told to inquire")
    return "502 outcome_unknown; once each"


@case(
    "stamps",
    "A hundred signed calls at once.",
    "each accepted, with a stamp of its own",
    threat=40,
    route="eko",
)
async def _stamps(ground: Ground) -> str:
    eko, number = ground.stand_ins.eko, 100
    before = eko.arrived
    target = (
        f"/ekoapi/v3/customer/payment/bbps/operators?initiator_id={sandbox.SANDBOX_INITIATOR_ID}"
    )
    answers = await asyncio.gather(*(ground.call("eko", get(target)) for _ in range(number)))
    expect({answer.status for answer in answers} == {200}, "not all were accepted")
    arrived = list(eko.journal)[-number:]
    stamps = {
        value
        for each in arrived
        for name, value in each.headers
        if name.lower() == b"secret-key-timestamp"
    }
    expect(eko.arrived - before == number, "some were sent twice")
    expect(len(stamps) == number, f"{len(stamps)} stamps for {number} calls")
    return f"{number} calls, {number} stamps"


@case(
    "final-refusal",
    "A 401 to a token that cannot be renewed.",
    "passed on; it was sent once",
    threat=38,
    route="token",
)
async def _final_refusal(ground: Ground) -> str:
    watch = ground.watch()
    answer = await ground.call("token", get("/x", "X-Play: unauthorised"))
    arrived = len(watch.arrived())
    expect(arrived == 1 and answer.status == 401 and not answer.code, f"sent {arrived} times")  # noqa: PLR2004
    return "401; once"


@case(
    "refusals-loop",
    "A vendor that answers 401 to every token.",
    "sent once more at most, and then the 401 is the answer",
    threat=38,
    route="eka",
)
async def _refusals_loop(ground: Ground) -> str:
    eka = ground.stand_ins.eka
    eka.faults.add(sandbox.Fault(match="GET /dr/v1/refused", status=401, times=None))
    before = len(eka.journal)
    answer = await ground.call("eka", get("/dr/v1/refused"))
    eka.faults.clear()
    sent = sum(each.target == "/dr/v1/refused" for each in list(eka.journal)[before:])
    expect(answer.status == 401 and sent <= 2, f"{answer.seen}; sent {sent} times")  # noqa: PLR2004
    return f"401; sent {sent} times"


@case(
    "refused-upload",
    "A 401 to a body too large to be kept.",
    "passed on; it was sent once, and whole",
    threat=38,
    route="eka",
)
async def _refused_upload(ground: Ground) -> str:
    eka = ground.stand_ins.eka
    eka.faults.add(sandbox.Fault(match="PUT /dr/v1/large", status=401, times=None))
    before, body = len(eka.journal), bytes(_KEPT + 1)
    raw = request("PUT", "/dr/v1/large", f"Content-Length: {len(body)}", body=body)
    answer = await ground.call("eka", raw)
    eka.faults.clear()
    sent = [each for each in list(eka.journal)[before:] if each.target == "/dr/v1/large"]
    expect(answer.status == 401 and len(sent) == 1, f"{answer.seen}; sent {len(sent)} times")  # noqa: PLR2004
    expect(sent[0].body_complete, "it was cut short")
    return "401; once, and whole"


@case(
    "upload-cut",
    "An upload that its caller breaks off.",
    "never looks whole upstream",
    threat=39,
)
async def _upload_cut(ground: Ground) -> str:
    watch = ground.watch()
    for head in ("Content-Length: 100", "Transfer-Encoding: chunked"):
        body = b"5\r\nhello\r\n" if "chunked" in head else b"hello"
        async with ground.line("plain") as line:
            await line.send(request("POST", "/x", head, body=body))
            line.end()
            await line.rest()
    await ground.ordinary("plain")
    whole = [each for each in watch.arrived() if each.whole]
    expect(not whole, f"{len(whole)} looked whole")
    return "neither looked whole"


CASES: Final = [
    *(_once(method) for method in ("POST", "PUT", "PATCH", "DELETE")),
    _payment_lost,
    _stamps,
    _final_refusal,
    _refusals_loop,
    _refused_upload,
    _upload_cut,
]
