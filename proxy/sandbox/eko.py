"""The stand-in of Eko: verifies every signature and records every payment."""

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from proxy.sandbox.base import StandIn
from proxy.sandbox.dummies import SANDBOX_AADHAAR, SANDBOX_AADHAAR_CIPHERTEXT
from proxy.sandbox.eko_answers import EkoAnswers, Payment, envelope
from proxy.sandbox.eko_auth import Door, EkoRefusedError
from proxy.sandbox.eko_hash import check_request_hash
from proxy.sandbox.faults import DescriptionError
from proxy.sandbox.wire import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PATH: Final = re.compile("/(?:ekoapi|ekoicici)(/v[123](/.*))")
_MEDIA_TYPES: Final = frozenset(
    {"application/json", "application/x-www-form-urlencoded", "multipart/form-data"}
)


class EkoStandIn(StandIn):
    """Eko; `skew_ms` shifts its clock, `refused` counts refusals by Eko's number."""

    name: ClassVar[str] = "eko"

    def __init__(self, clock: "Callable[[], float]") -> None:
        super().__init__(clock)
        self.skew_ms = 0
        self.door = Door()
        self.answers = EkoAnswers()
        self.refused: Counter[int] = Counter()
        self.aadhaar_of = {SANDBOX_AADHAAR_CIPHERTEXT: SANDBOX_AADHAAR}

    @property
    def payments(self) -> list[Payment]:
        """Every payment in the order of arrival, second debits included."""
        return self.answers.payments

    def now(self) -> float:
        """Return this server's wall seconds, its skew included."""
        return self.clock() + self.skew_ms / 1000

    def reset(self) -> None:
        """Return to how it was when it started; used timestamps and payments are forgotten."""
        super().reset()
        self.skew_ms = 0
        self.door.clear()
        self.answers.clear()
        self.refused.clear()
        self.aadhaar_of = {SANDBOX_AADHAAR_CIPHERTEXT: SANDBOX_AADHAAR}

    def answer(self, call: Call) -> web.Response:
        """Judge one request and carry it out; always Eko's envelope."""
        try:
            done = self._carry_out(call)
        except EkoRefusedError as refused:
            self.refused[refused.number] += 1
            return web.json_response(envelope(refused.number, refused.message), status=refused.http)
        self.calls += 1
        return web.json_response(done)

    def _carry_out(self, call: Call) -> dict[str, Any]:
        path = _PATH.fullmatch(call.path)
        if path is None:
            raise EkoRefusedError(404, 404, "No such path")
        access_key = self.door.access_key_for(path[2])
        timestamp = self.door.check(call, access_key, round(self.now() * 1000))
        if call.body.length and call.media_type not in _MEDIA_TYPES:
            raise EkoRefusedError(415, 415, "Unsupported content type")
        check_request_hash(call, access_key, timestamp, self.aadhaar_of)
        return self.answers.answer(call, path[1])

    def state(self) -> dict[str, Any]:
        """Return counters and settings, no key and no number of a customer."""
        return super().state() | {
            "payments": len(self.payments),
            "duplicate_payments": sum(payment.duplicate for payment in self.payments),
            "refused": {str(number): count for number, count in self.refused.items()},
            "used_timestamps": self.door.remembered(),
            "skew_ms": self.skew_ms,
        }

    def levers(self) -> "Mapping[str, Callable[[dict[str, Any]], None]]":
        """Shift the clock."""
        return {"skew": self._set_skew}

    def _set_skew(self, body: dict[str, Any]) -> None:
        skew = body.get("ms")
        if isinstance(skew, bool) or not isinstance(skew, int):
            raise DescriptionError("ms: expected a whole number of milliseconds")
        self.skew_ms = skew
