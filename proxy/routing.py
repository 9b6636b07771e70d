"""Which route serves a path, and which operations a pattern names. Pure: no I/O, no clock.

Patterns are judged against the path as the upstream will understand it: percent-decoded, with
every spelling that could be read in two ways already refused (`proxy.target`).

Some servers take one path for another: they ignore letter case, a slash at the end, dots and
spaces at a segment's end, an extension (`/pay.json`), or that a letter is not ASCII. What is
permitted is therefore permitted exactly as it is spelled; what needs care needs it in every such
spelling (`loosely`); what such a server would take for one of another route's paths is nobody's.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

_METHOD = re.compile(r"[A-Z]+(?:-[A-Z]+)*|\*")
_IGNORED = re.compile(r"[. ]+(?=/|\Z)|(?<=/) +")
_PATTERN = re.compile(r"(?:/[^/\s]*)+")


# A pattern's segments: the parts between the `*`s of each, None for `**`.
Segments: TypeAlias = tuple[tuple[str, ...] | None, ...]


_NOTHING: Final[tuple[tuple[str, ...] | None, ...]] = (("",), None)


class Operations(NamedTuple):
    """A set of operations, written `METHOD[,METHOD] PATTERN`.

    In the pattern `*` stands for any run of characters within one segment, and a segment `**`
    for any number of segments, none included. The method `*` stands for every method.
    """

    text: str
    methods: frozenset[str]
    exact: Segments
    lenient: Segments

    @classmethod
    def parse(cls, text: str) -> Operations:
        """Read `METHOD[,METHOD] PATTERN`; a ValueError tells what was expected."""
        methods, _, pattern = text.partition(" ")
        names = methods.split(",")
        if not all(_METHOD.fullmatch(name) for name in names) or not _PATTERN.fullmatch(pattern):
            raise ValueError("expected METHOD[,METHOD] /PATTERN, such as 'GET,POST /v1/**'")
        exact = tuple(map(_segment, pattern.split("/")[1:]))
        lenient = tuple(map(_segment, loosely(pattern)))
        return cls(text, frozenset(names), exact, lenient)

    def allows(self, method: str, path: str) -> bool:
        """Tell whether this names the operation exactly: for lists of what is permitted.

        A `*` is never nothing where a segment is: to many servers `/items/` is `/items`.
        """
        if path[-1:] == "/" and self.exact[-1] not in _NOTHING:
            return False
        return self._has(method) and _matches(self.exact, path.split("/")[1:])

    def covers(self, method: str, segments: list[str]) -> bool:
        """Tell whether an upstream might take this for the operation: `loosely`'s segments.

        For lists of what needs care, such as payments.
        """
        return self._has(method) and _matches(self.lenient, segments)

    def _has(self, method: str) -> bool:
        return method in self.methods or "*" in self.methods


def loosely(path: str) -> list[str]:
    """Split a path into what the most tolerant server would understand."""
    segments = fold(path).removesuffix("/").split("/")[1:]
    if segments and "." in segments[-1]:
        segments[-1] = segments[-1].partition(".")[0] or segments[-1]
    return segments


def fold(path: str) -> str:
    """Spell a path without what some servers ignore, but for what stands at its end."""
    if not path.isascii():
        # Some letters become ASCII by case (the long s, the Kelvin sign), others are like it.
        path = unicodedata.normalize("NFKD", path.upper()).encode("ascii", "ignore").decode()
    if "." in path or " " in path:
        path = _IGNORED.sub("", path)
    return path.lower()


def _segment(segment: str) -> tuple[str, ...] | None:
    return None if segment == "**" else tuple(segment.split("*"))


def _is_like(wanted: tuple[str, ...], segment: str) -> bool:
    """Match one segment: the parts between its `*`s, each as early as it comes. Linear."""
    if len(wanted) == 1:
        return segment == wanted[0]
    first, *middle, last = wanted
    if not segment.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = segment.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(segment) - at >= len(last) and segment.endswith(last)


def _matches(pattern: Segments, segments: list[str]) -> bool:
    """Match segment by segment, coming back to the last `**` only: no path makes this explode."""
    at = here = 0
    resume: tuple[int, int] | None = None
    while here < len(segments):
        more = at < len(pattern)
        wanted = pattern[at] if more else None
        if more and wanted is None:
            resume = (at, here)
            at += 1
        elif wanted is not None and _is_like(wanted, segments[here]):
            at += 1
            here += 1
        elif resume is not None:
            at, here = resume[0] + 1, resume[1] + 1
            resume = (resume[0], here)
        else:
            return False
    return all(each is None for each in pattern[at:])


T = TypeVar("T")


class Prefixes(Generic[T]):
    """Routes of one listener: the longest prefix that ends at a segment's end wins."""

    def __init__(self, routes: Iterable[tuple[str, T]]) -> None:
        self._by_prefix = {prefix.rstrip("/"): route for prefix, route in routes}
        self._only = self._by_prefix.get("") if len(self._by_prefix) == 1 else None
        self._folded = {prefix: fold(prefix) for prefix in self._by_prefix}
        self._folds = frozenset(self._folded.values())

    def find(self, path: str) -> T | None:
        """Return what serves this path, None if nothing does; cost grows with the path alone.

        Nothing does where a server that ignores letter case and the like would see another
        route's prefix: that route has rules and a credential of its own.
        """
        if self._only is not None:
            return self._only
        prefix = _longest(self._by_prefix, path)
        if prefix is None or self._folded[prefix] != _longest(self._folds, fold(path)):
            return None
        return self._by_prefix[prefix]


def _longest(prefixes: Container[str], path: str) -> str | None:
    while path not in prefixes:
        if not path:
            return None
        path = path[: path.rindex("/")] if "/" in path else ""
    return path
