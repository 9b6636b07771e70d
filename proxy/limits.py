"""What callers may hold at most, all of one kind of listener together; who is refused is counted.

Sizes of heads hold for connections that are accepted from then on, the others at once.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.errors import ProxyError, problem

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_TELL_EVERY: Final = 10.0  # seconds


class Bounds(NamedTuple):
    """The figures: sizes in bytes, times in seconds; `per_caller` is None for no such limit.

    `line` is for the request line's target. `connections` and `per_caller` are this process's.
    """

    header_bytes: int = 64 * 1024
    header_fields: int = 100
    request_line: int = 16 * 1024
    header_timeout: float = 10.0
    connections: int = 10000
    per_caller: int | None = None


class Limits:
    """Counts connections in and out, and makes the answers to callers that go too far.

    `note` is told the name of a limit each time that one is reached.
    """

    def __init__(self, bounds: Bounds, note: Callable[[str], None]) -> None:
        self.bounds = bounds
        self.taken = 0
        self._note = note
        self._held: Counter[str] = Counter()  # connections by caller
        self._untold: Counter[str] = Counter()
        self._told_at = -math.inf

    # Connections.

    def take(self, who: str) -> bytes | None:
        """Count a connection in; return the answer instead if it is one too many."""
        if self.taken >= self.bounds.connections:
            return self._turn_away("connections")
        if self.bounds.per_caller is not None and self._held[who] >= self.bounds.per_caller:
            return self._turn_away("connections_per_caller")
        self.taken += 1
        self._held[who] += 1
        return None

    def give_back(self, who: str) -> None:
        """Count a connection out."""
        self.taken -= 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]

    def _turn_away(self, limit: str) -> bytes:
        self.note_unlogged(limit)
        error = ProxyError("overloaded", f"limits.{limit} is reached.", retry_after=1)
        body = problem(error, route="", request_id="")
        return (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
            b"X-Ekeko-Error: overloaded\r\nRetry-After: 1\r\nCache-Control: no-store\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    # Heads.

    def too_large(self, limit: str) -> ProxyError:
        """Refuse a head that has more than `limit` allows."""
        self._note(limit)
        return ProxyError(
            "header_too_large",
            f"limits.{limit} is reached: a request's head may have {self.bounds.header_bytes} "
            f"bytes, {self.bounds.request_line} of them in its target, and "
            f"{self.bounds.header_fields} fields.",
        )

    def too_late(self) -> ProxyError:
        """Refuse a head that does not come to its end (RFC 9110, 15.5.9)."""
        self._note("header_timeout")
        return ProxyError(
            "request_timeout",
            f"The request's head did not come within limits.header_timeout, "
            f"{self.bounds.header_timeout:g} s.",
        )

    # What no line of the access log tells.

    def note_unlogged(self, limit: str) -> None:
        """Count that a limit was reached where there is no request to log."""
        self._note(limit)
        self._untold[limit] += 1

    def tell(self, now: float) -> None:
        """Log what else was refused: a line for each limit, every ten seconds at most."""
        if self._untold and now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            untold, self._untold = self._untold, Counter()
            for limit, times in untold.items():
                logger.warning("limits.%s was reached: connections turned away: %d", limit, times)
