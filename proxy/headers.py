"""Which header fields pass, which stay, which the proxy must read. Pure: no I/O, no clock.

Facts this rests on:
- Hop-by-hop fields, and whatever `Connection` names, belong to one connection (RFC 9110, 7.6.1).
  They are removed before credentials are attached, so `Connection: Authorization` cannot remove
  what the proxy adds.
- Upstream frameworks fold names: CGI and WSGI read `Developer_Key` and `developer-key` as one,
  PHP folds dots too. A field that the proxy owns is therefore recognised by its folded name.
- Some frameworks let a field say which method or path is meant. What is judged would not be what
  is done, so a request that has one is refused where either is judged.
- A name's fate never depends on its value, and programs use few names: the fate is looked up by
  the bytes as they stand, and worked out once for each spelling.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxy.errors import bad_request
from proxy.identity import KEY_FIELD

if TYPE_CHECKING:
    from collections.abc import Iterable

    RawFields = Iterable[tuple[bytes, bytes]]

_NOT_ALNUM = re.compile(r"[^a-z0-9]")
_LEARN_AT_MOST = 512

# Connection's own vocabulary, and what RFC 9110 or long practice make hop-by-hop.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Rails, Symfony, Express and others; IIS, Symfony and Laminas.
_OVERRIDES: Final = frozenset(
    {
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    }
)
_FRAMING: Final = frozenset({"content-length", "host"})
_READ_ALONE: Final = frozenset(
    {"connection", "expect", "host", "transfer-encoding", "upgrade", "x-request-id"}
)
_READ_AND_PASSED: Final = frozenset({"content-length", "content-type", "origin", "sec-fetch-site"})
_ANSWER_READ_ALONE: Final = frozenset({"connection", "transfer-encoding", "upgrade"})
_ANSWER_READ_AND_PASSED: Final = frozenset({"content-length", "location"})
_OURS: Final = frozenset({"x-ekeko-error", "x-request-id"})
_LISTS: Final = frozenset({"connection", "upgrade"})
_ORDINARY_CONNECTION: Final = frozenset({b"", b"close", b"keep-alive", b"Keep-Alive", b"Close"})


def fold(name: str) -> str:
    """Reduce a field name to what folding frameworks read: `Developer_Key` → developer-key."""
    return _NOT_ALNUM.sub("-", name.lower())


class Fields:
    """A head after one pass: `lines` to send on, and what the proxy itself reads from it."""

    __slots__ = ("lines", "read")

    lines: list[bytes]
    read: dict[str, bytes]


class _Sorter:
    """Decides each field's fate by its name: passed (True), dropped (False), or read (a key)."""

    def __init__(self) -> None:
        self._fates: dict[bytes, bool | tuple[str, bool]] = {}

    def fate(self, name: str) -> bool | tuple[str, bool]:
        """Work out a name's fate; a pair is the key to read it under, and whether it passes."""
        raise NotImplementedError

    def sort(self, raw: RawFields) -> Fields:
        """Go through a head once. ProxyError `bad_request` if a field that is read stands twice."""
        fields = Fields()
        lines: list[bytes] = []
        read: dict[str, bytes] = {}
        fields.lines, fields.read = lines, read
        fates = self._fates
        for name, value in raw:
            try:
                fate = fates[name]
            except KeyError:
                fate = self._learn(name)
            if fate is True:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif fate:
                key, passes = fate
                if passes:
                    lines.append(b"%b: %b\r\n" % (name, value))
                read[key] = value if key not in read else _joined(key, read[key], value)
        if "connection" in read and read["connection"] not in _ORDINARY_CONNECTION:
            _remove_nominated(fields, read["connection"])
        return fields

    def _learn(self, raw_name: bytes) -> bool | tuple[str, bool]:
        fate = self.fate(raw_name.decode("latin-1"))
        if len(self._fates) < _LEARN_AT_MOST:  # names are the caller's: memory stays bounded
            self._fates[raw_name] = fate
        return fate


def _joined(key: str, first: bytes, second: bytes) -> bytes:
    if key not in _LISTS:
        raise bad_request(f"The header field {key} stands in the request more than once.")
    return first + b"," + second


def _remove_nominated(fields: Fields, connection: bytes) -> None:
    """Drop what `Connection` names, and forget that it was read."""
    nominated = {token.strip().lower() for token in connection.split(b",")}
    nominated.discard(b"content-length")  # without it the body would be read as a second message
    fields.lines = [
        line for line in fields.lines if line.partition(b":")[0].lower() not in nominated
    ]
    if b"content-type" in nominated:
        fields.read.pop("content-type", None)


class RequestSorter(_Sorter):
    """Sorts a caller's fields for one route.

    `owned` are the names that the route's credential sets, or that must never pass: removed in
    any spelling. `consumed`, and a caller's key, are read under their folded name and removed.
    `is_judged` tells that method and path matter on this route: for `allow`, or for what a
    credential attaches.
    """

    def __init__(
        self,
        owned: Iterable[str] = (),
        consumed: Iterable[str] = (),
        *,
        is_judged: bool = False,
    ) -> None:
        super().__init__()
        self._is_judged = is_judged
        self._owned = frozenset(map(fold, owned))
        self._consumed = frozenset(map(fold, consumed))

    def fate(self, name: str) -> bool | tuple[str, bool]:
        """See `_Sorter.fate`. ProxyError `bad_request` for another method or path than judged."""
        lower, folded = name.lower(), fold(name)
        if self._is_judged and folded in _OVERRIDES:
            raise bad_request(f"The header field {folded} could make another request of this one.")
        if folded in self._consumed or folded == KEY_FIELD:
            return (folded, False)
        if lower in _READ_ALONE:
            return (lower, False)
        if lower in _READ_AND_PASSED:
            return (lower, True)
        return not (
            folded in self._owned
            or folded in _HOP_BY_HOP
            or folded in _FRAMING  # an alias such as Content_Length, which WSGI would believe
            or folded == "forwarded"
            or folded.startswith("x-forwarded-")
        )


class ResponseSorter(_Sorter):
    """Sorts an upstream's fields. Its copies of what the proxy itself answers are dropped."""

    def fate(self, name: str) -> bool | tuple[str, bool]:
        """See `_Sorter.fate`."""
        lower = name.lower()
        if lower in _ANSWER_READ_ALONE:
            return (lower, False)
        if lower in _ANSWER_READ_AND_PASSED:
            return (lower, True)
        return lower not in _HOP_BY_HOP and lower not in _OURS
