"""Eko's door: developer key, signature and timestamp of every request, in Eko's numbers."""

import base64
import hashlib
import heapq
import hmac
import re
from typing import Final

from proxy.sandbox.dummies import SANDBOX_ACCESS_KEY, SANDBOX_DEVELOPER_KEY
from proxy.sandbox.wire import Call, first_stray

WRONG_DEVELOPER_KEY: Final = 2483
WRONG_SECRET_KEY: Final = 2484
STALE_TIMESTAMP: Final = 2485
MALFORMED_TIMESTAMP: Final = 2486
HEADER_MISSING: Final = 2487
TOLERANCE_MS: Final = 120_000

_OWNED: Final = {
    "developer-key": "developer_key",
    "secret-key": "secret-key",
    "secret-key-timestamp": "secret-key-timestamp",
    "request-hash": "request_hash",
}
_TIMESTAMP: Final = re.compile("[0-9]{13}")


class EkoRefusedError(Exception):
    """Eko says no: HTTP status and the envelope's `status`, which is Eko's own number."""

    def __init__(self, http: int, number: int, message: str) -> None:
        super().__init__(message)
        self.http = http
        self.number = number
        self.message = message


def sign(access_key: str, message: str) -> str:
    """Compute base64(HMAC-SHA256): the HMAC key is the base64 text of the access key, as text."""
    key = base64.b64encode(access_key.encode())
    return base64.b64encode(hmac.new(key, message.encode(), hashlib.sha256).digest()).decode()


def same(given: str, wanted: str) -> bool:
    """Compare two signatures; what is not ASCII is none."""
    return hmac.compare_digest(given.encode(), wanted.encode())


class Door:
    """Judges the signing headers and remembers the timestamps used under each access key.

    `product_keys` maps prefixes of the path below `/v3` to other access keys, as Eko has them
    for settlement and fund transfer; the longest prefix wins.
    """

    def __init__(self) -> None:
        self.product_keys: dict[str, str] = {}
        self._used: dict[str, set[int]] = {}
        self._oldest: dict[str, list[int]] = {}

    def access_key_for(self, operation: str) -> str:
        """Return the access key that signs for an operation's path (without `/ekoapi/v3`)."""
        prefixes = [p for p in self.product_keys if operation.startswith(p)]
        return self.product_keys[max(prefixes, key=len)] if prefixes else SANDBOX_ACCESS_KEY

    def check(self, call: Call, access_key: str, now_ms: int) -> str:
        """Return the timestamp of a request that is signed well, and count it as used.

        A request that is refused here does not use up its timestamp.
        """
        stray = first_stray(call.headers, _OWNED)
        if stray is not None:
            raise EkoRefusedError(400, 400, stray)
        developer_key = _required(call, "developer_key")
        signature = _required(call, "secret-key")
        timestamp = _required(call, "secret-key-timestamp")
        if developer_key != SANDBOX_DEVELOPER_KEY:
            raise EkoRefusedError(401, WRONG_DEVELOPER_KEY, "Wrong developer_key")
        if not _TIMESTAMP.fullmatch(timestamp):
            raise EkoRefusedError(401, MALFORMED_TIMESTAMP, "Timestamp is not 13 digits")
        if abs(int(timestamp) - now_ms) > TOLERANCE_MS:
            raise EkoRefusedError(401, STALE_TIMESTAMP, "Timestamp is over 2 minutes off")
        if not same(signature, sign(access_key, timestamp)):
            raise EkoRefusedError(401, WRONG_SECRET_KEY, "Wrong secret-key")
        self._use(access_key, int(timestamp), now_ms)
        return timestamp

    def remembered(self) -> int:
        """Return how many used timestamps are remembered."""
        return sum(map(len, self._used.values()))

    def clear(self) -> None:
        """Forget all used timestamps and product keys."""
        self.product_keys.clear()
        self._used.clear()
        self._oldest.clear()

    def _use(self, access_key: str, timestamp: int, now_ms: int) -> None:
        used = self._used.setdefault(access_key, set())
        oldest = self._oldest.setdefault(access_key, [])
        if timestamp in used:
            raise EkoRefusedError(401, STALE_TIMESTAMP, "Timestamp was used before")
        # Whatever left the window is refused for its age, so it need not be remembered.
        while oldest and oldest[0] < now_ms - TOLERANCE_MS:
            used.discard(heapq.heappop(oldest))
        used.add(timestamp)
        heapq.heappush(oldest, timestamp)


def _required(call: Call, name: str) -> str:
    value = "".join(call.values(name))
    if not value:
        raise EkoRefusedError(401, HEADER_MISSING, f"{name} is missing")
    return value
