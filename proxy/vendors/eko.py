"""Eko Platform Services: its origins, its documented operations, which of them move money."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Final, Literal

from proxy.routing import Operations
from proxy.vendors.catalogue import Catalogue, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.addresses import Origin

Environment = Literal["staging", "production"]
HOSTS: Final[dict[Environment, str]] = {"staging": "staging.eko.in", "production": "api.eko.in"}

SIGNATURE_FIELDS: Final = frozenset(
    {"developer_key", "secret-key", "secret-key-timestamp", "request_hash"}
)
# Wrong developer_key, wrong secret-key, stale or used timestamp, not milliseconds, field missing.
_REFUSALS: Final = frozenset({2483, 2484, 2485, 2486, 2487})

_GZIP = b"\x1f\x8b"
_ENVELOPE_AT_MOST = 64 * 1024  # bytes
_BASES = ("/ekoapi/v3", "/ekoicici/v3")
# v1 and v2 have no published list. These are the calls known to move money there, and the paths
# that their documentation shows, so that logs have a template.
_OLDER_FINANCIAL = (
    "POST /**/billpayments/paybill",
    "POST /**/aeps",
    "POST /**/transactions",
    "POST,PUT /**/agent/user_code:*/settlement",
    "POST,PUT /**/fund-transfer/**",
    "POST,PUT /**/fundtransfer/**",
    "POST,PUT /**/v1/upi/**",
    "POST,PUT /**/v2/upi/**",
)
_OLDER_WORDS = (
    "/ekoapi/v1/billpayments/paybill",
    "/ekoapi/v2/billpayments/paybill",
    "/ekoapi/v2/aeps",
    "/ekoapi/v1/transactions/{}",
    "/ekoapi/v2/transactions/{}",
    "/ekoapi/v1/agent/{}/settlement",
    "/ekoapi/v1/agent/{}/settlementaccounts",
    "/ekoapi/v1/customers/{}/recipients",
)


def is_origin(origin: Origin, environment: Environment) -> bool:
    """Tell whether this is the environment's host, over TLS; Eko uses several ports."""
    return origin.scheme == "https" and origin.host == HOSTS[environment]


def name(environment: Environment) -> str:
    """Name the environment, for messages."""
    return f"Eko's {environment}"


def is_refusal(answer: bytes) -> bool:
    """Tell whether the body of a 401 says that the request was refused at the door (2483-2487)."""
    try:
        if answer.startswith(_GZIP):  # the caller may have asked for a compressed answer
            answer = zlib.decompressobj(wbits=31).decompress(answer, _ENVELOPE_AT_MOST)
        envelope = json.loads(answer)
    except (ValueError, RecursionError, zlib.error):
        return False
    number = envelope.get("status") if isinstance(envelope, dict) else None
    return isinstance(number, int) and number in _REFUSALS


def _paths() -> Iterator[str]:
    for base in _BASES:
        yield from (base + row["path"] for row in _ROWS)
    for path in _OLDER_WORDS:
        yield from (path, path.replace("/ekoapi", "/ekoicici"))


def _financial() -> Iterator[str]:
    for row in _ROWS:
        if row["financial"] == "yes":
            yield f"{row['method']} /**" + re.sub(r"\{[^}]*\}", "*", row["path"])
    yield from _OLDER_FINANCIAL


_ROWS = rows("eko")
# Eko's documented operations, under both environments' base paths.
CATALOGUE: Final = Catalogue(_paths())
# The operations that move money.
FINANCIAL: Final = tuple(map(Operations.parse, _financial()))
