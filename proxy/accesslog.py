"""The access log: one JSON object a line, gathered and written a few times a second.

A write for each request would cost more than the rest of the logging. Lines wait at most until
the next `flush`, which the ticker and the end of the process call.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.observe import Event

_FLUSH_AT = 256  # lines
_METHOD_AT_MOST = 64  # characters: it is the one part of a line that a caller could make long
_QUOTED_AT_MOST = 4096
# Formatting a number costs more than the rest of a line: three digits are looked up.
_DIGITS = tuple(f"{number:03d}" for number in range(1000))


class AccessLog:
    """Writes exchanges (an observer). `write` takes whole lines; `enabled` is `log.access`."""

    def __init__(self, write: Callable[[str], None], *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._write = write
        self._lines: list[str] = []
        self._second = -1
        self._stamp = ""
        self._quoted: dict[str, str] = {}

    def exchanged(self, event: Event) -> None:
        """Add a line."""
        if not self.enabled:
            return
        self._lines.append(self._line(event))
        if len(self._lines) >= _FLUSH_AT:
            self.flush()

    def fetched(self, credential: str, grant: str, outcome: str) -> None:
        """Say nothing: the metrics count these, and failures are logged where they happen."""

    def limited(self, limit: str) -> None:
        """Say nothing: what was refused has a line of its own, or one in the program's log."""

    def announce(self, fields: Mapping[str, Any]) -> None:
        """Write a line of another kind at once, such as the one that says `ready`."""
        self._lines.append(json.dumps(fields))
        self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._write("\n".join(lines) + "\n")

    def _line(self, event: Event) -> str:
        # By hand: every text but two is of a kind that needs no escaping.
        second, millisecond = event.started // 1000, event.started % 1000
        if second != self._second:
            self._second = second
            self._stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        path = self._quoted.get(event.path) or self._quote(event.path)
        upstream = "null" if event.upstream is None else _milliseconds(event.upstream)
        code = "null" if event.code is None else f'"{event.code}"'
        who = event.identity
        identity = "null" if who is None else self._quoted.get(who) or self._quote(who)
        return (
            f'{{"ts": "{self._stamp}.{_DIGITS[millisecond]}Z", "request_id": "{event.request_id}", '
            f'"route": "{event.route}", "method": "{event.method[:_METHOD_AT_MOST]}", '
            f'"path": {path}, "status": {event.status}, "code": {code}, '
            f'"duration_ms": {_milliseconds(event.duration)}, "upstream_ms": {upstream}, '
            f'"bytes_in": {event.bytes_in}, "bytes_out": {event.bytes_out}, '
            f'"caller": "{event.caller}", "identity": {identity}, "attempts": {event.attempts}}}'
        )

    def _quote(self, text: str) -> str:
        """Quote a template, or a caller's name, once: there are few."""
        quoted = json.dumps(text)
        if len(self._quoted) < _QUOTED_AT_MOST:
            self._quoted[text] = quoted
        return quoted


def _milliseconds(seconds: float) -> str:
    micros = int(seconds * 1e6 + 0.5)
    return f"{micros // 1000}.{_DIGITS[micros % 1000]}"
