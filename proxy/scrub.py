"""Masking what was attached to a request where its answer echoes it. Pure: no I/O, no clock.

Vendors' error pages and debugging aids repeat what they were sent. A caller is to have no
credentials, so an echo is masked by as many asterisks: lengths, JSON and field names stay valid.

Facts this rests on:
- An encoder leaves letters, digits, `-`, `.` and `_` alone, whether it writes JSON, HTML, a URL or
  a form; `+`, `/` and `=` of a signature have many spellings. So what is looked for is a secret's
  longest run of such characters; without it the rest is worth nothing. Where the whole secret
  stands as it was sent, the whole is masked.
- What an encoder turns into something else (base64 of the whole, compression, encryption) is not
  found, nor is what a caller has cut up by asking for ranges.
- A short run could stand anywhere, so below `SHORTEST` nothing is looked for.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHORTEST: Final = 8  # bytes
_PLAIN: Final = (string.ascii_letters + string.digits + "-._").encode()
# Turns whatever ends a run into a space.
_GAPS: Final = bytes(byte if byte in _PLAIN else 0x20 for byte in range(256))
_FILLER: Final = b"*"
# How many bytes of a beginning are looked for as one, and how many one by one.
_STEM: Final = 8


class Needle(NamedTuple):
    """A secret as it is looked for: no echo of it is without `run`. `repr` shows nothing of it."""

    run: bytes
    whole: bytes

    def __repr__(self) -> str:
        return "Needle()"


def needles(*secrets: bytes) -> tuple[Needle, ...]:
    """Return what to look for, made once for each value; too short ones are left out."""
    return tuple(
        Needle(_longest_run(secret), secret) for secret in secrets if len(secret) >= SHORTEST
    )


def masked(data: bytes, wanted: tuple[Needle, ...]) -> bytes:
    """Return data with every echo in it masked; the same object if there is none."""
    for needle in wanted:
        if needle.run in data:
            return _fill(data, _spans(data, _spellings(wanted)))
    return data


class Scrubber:
    """Masks echoes in a body that comes in pieces, wherever it is cut.

    Between two pieces it holds back only what could be the beginning of an echo. `has_masked`
    tells whether there was one.
    """

    __slots__ = ("_beginnings", "_covered", "_held", "_runs", "_spellings", "has_masked")

    def __init__(self, wanted: tuple[Needle, ...]) -> None:
        self._runs = tuple(needle.run for needle in wanted)
        self._spellings = _spellings(wanted)
        # Every beginning that is shorter than a stem.
        self._beginnings = tuple(s[:size] for s in self._spellings for size in range(1, _STEM))
        self.has_masked = False
        self._held = b""
        self._covered = 0  # how much of what is held belongs to an echo that has begun before it

    def feed(self, data: bytes) -> bytes:
        """Take a piece; return what can be passed on, which may be nothing."""
        if self._held:
            data = self._held + data
        cut = self._first_beginning(data)
        if self._covered:
            return self._pass_masked(data, cut)
        for run in self._runs:
            if run in data:
                return self._pass_masked(data, cut)
        if cut == len(data):
            self._held = b""
            return data
        self._held = data[cut:]
        return data[:cut]

    def end(self) -> bytes:
        """Return what was held back: the body has come to its end."""
        held, self._held = self._held, b""
        return self._masked(held)[0]

    def _pass_masked(self, data: bytes, cut: int) -> bytes:
        self.has_masked = True
        whole, spans = self._masked(data)
        self._held = data[cut:]
        self._covered = max((end - cut for start, end in spans if start < cut < end), default=0)
        return whole[:cut]

    def _masked(self, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        spans = [(-1, self._covered), *_spans(data, self._spellings)]
        return _fill(data, spans), spans

    def _first_beginning(self, data: bytes) -> int:
        """Return where the longest end of data begins that more data could make an echo."""
        size = len(data)
        cut = size
        for spelling in self._spellings:
            at = data.find(spelling[:_STEM], max(0, size - len(spelling) + 1))
            while at >= 0 and not spelling.startswith(data[at:]):
                at = data.find(spelling[:_STEM], at + 1)
            if at >= 0:
                cut = min(cut, at)
        if cut == size and data.endswith(self._beginnings):
            cut -= max(len(each) for each in self._beginnings if data.endswith(each))
        return cut


def _longest_run(secret: bytes) -> bytes:
    run = max(secret.translate(_GAPS).split(), key=len, default=b"")
    return run if len(run) >= SHORTEST else secret


def _spellings(wanted: tuple[Needle, ...]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(each for needle in wanted for each in needle))


def _spans(data: bytes, spellings: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Yield where each spelling stands, overlapping ones too."""
    for spelling in spellings:
        at = data.find(spelling)
        while at >= 0:
            yield at, at + len(spelling)
            at = data.find(spelling, at + 1)


def _fill(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    done = 0
    for start, end in sorted(spans):
        first = max(start, done)
        if first < end:
            out[first:end] = _FILLER * (end - first)
            done = end
    return bytes(out)
