"""What the tests of credentials share: settings, requests, and a look at header lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.credentials.base import Authorization, Outgoing
from proxy.credentials.eko import EkoSettings, EkoSignatures
from proxy.credentials.stamps import ClockStamps
from tests.support import ManualClock

if TYPE_CHECKING:
    from proxy.observe import Event

ACCESS_KEY = "d2fe1d99-6298-4af2-8cc5-d97dcf46df30"
DEVELOPER_KEY = "canary-developer-key"
JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
BBPS = "/ekoapi/v2/billpayments/paybill"
BBPS_V3 = "/ekoapi/v3/customer/payment/bbps"
AEPS = "/ekoapi/v2/aeps"


def eko_settings(**changes: Any) -> EkoSettings:
    raw = {
        "kind": "eko",
        "environment": "staging",
        "developer_key": DEVELOPER_KEY,
        "access_key": ACCESS_KEY,
    }
    return EkoSettings.model_validate(raw | changes)


def eko(*, at: int = 1_700_000_000_000, **changes: Any) -> EkoSignatures:
    """Make an Eko credential whose clock shows `at` and stands still."""
    stamps = ClockStamps(ManualClock(wall_ms=at))
    return EkoSignatures(eko_settings(**changes), lambda _: stamps)


def outgoing(
    path: str = "/",
    body: bytes | None = None,
    *,
    method: str = "POST",
    query: str = "",
    content_type: bytes | None = JSON,
    **read: bytes,
) -> Outgoing:
    fields = {name.replace("_", "-"): value for name, value in read.items()}
    if content_type is not None:
        fields["content-type"] = content_type
    return Outgoing(method, path, query, fields, body)


def lines_of(authorization: Authorization) -> dict[str, str]:
    """Take a block of header lines apart; each has to be whole, and no name may come twice."""
    assert authorization.lines.endswith(b"\r\n")
    lines = authorization.lines.decode("ascii").split("\r\n")[:-1]
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    found = dict(pairs)
    assert len(found) == len(lines)
    return found


class Fetches:
    """An observer that keeps what is told of token fetches."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    @property
    def grants(self) -> list[tuple[str, str]]:
        """Each call's grant and outcome."""
        return [(grant, outcome) for _, grant, outcome in self.seen]

    def exchanged(self, event: Event) -> None:
        raise AssertionError(event)

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        self.seen.append((credential, grant, outcome))

    def limited(self, limit: str) -> None:
        raise AssertionError(limit)
