"""What happened, told once: one event for each exchange, to whoever listens.

The access log, the metrics and the status page all see the same event and nothing else, so none
of them can show what the event does not hold: no header, no query, no body, no real path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


CALLER_CLOSED: Final = "caller_closed"  # the code of an exchange whose caller went away


class Event:
    """One exchange: filled in as it goes, and told when it has ended.

    `path` is a template; `code` is an error code of ours, or None; times are seconds; `started`
    is milliseconds since the epoch; sizes are body bytes from and to the caller. `identity` is the
    name by which a caller is known, None where nobody has to be.
    """

    __slots__ = (
        "attempts",
        "bytes_in",
        "bytes_out",
        "caller",
        "code",
        "duration",
        "identity",
        "method",
        "path",
        "request_id",
        "route",
        "started",
        "status",
        "upstream",
    )

    def __init__(self, started: int, method: str, caller: str) -> None:
        self.started = started
        self.method = method
        self.caller = caller
        self.identity: str | None = None
        self.request_id = ""
        self.route = ""
        self.path = ""
        self.status = 0
        self.code: str | None = None
        self.duration = 0.0
        self.upstream: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.attempts = 0


class Observer(Protocol):
    """Is told of what happens. Must be quick, and must not fail."""

    def exchanged(self, event: Event) -> None:
        """Note a finished exchange."""
        ...

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        """Note a call to a token endpoint: its grant, and `ok`, `refused` or `failed`."""
        ...

    def limited(self, limit: str) -> None:
        """Note that a caller was refused something at a limit; `limit` is its key."""
        ...


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def exchanged(self, event: Event) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.exchanged(event)

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.fetched(credential, grant, outcome)

    def limited(self, limit: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.limited(limit)
