"""Counting and hashing the parts of a multipart body while it streams (RFC 2046, 5.1.1)."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hashlib import _Hash

_HEAD_LIMIT: Final = 16 * 1024
_NAME: Final = re.compile(rb'[;\s]name="([^"]*)"', re.IGNORECASE)
_FILENAME: Final = re.compile(rb'[;\s]filename="([^"]*)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One finished part; `size` in bytes, `filename` None for a plain field."""

    name: str | None
    filename: str | None
    size: int
    sha256: str


@dataclass(slots=True)
class _OpenPart:
    name: str | None
    filename: str | None
    size: int = 0
    digest: "_Hash" = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)

    def finish(self) -> Part:
        return Part(self.name, self.filename, self.size, self.digest.hexdigest())


class PartScanner:
    """Feed it chunks; `parts` holds what is finished, `closed` tells whether the end was seen.

    Holds one chunk and at most 16 KiB of a part's head, never a part's content.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        # The first delimiter may stand at the very start, without a line before it.
        self._rest = b"\r\n"
        self._at_head = False
        self._open: _OpenPart | None = None
        self.parts: list[Part] = []
        self.closed = False

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk, of any size; bytes after the closing delimiter are ignored."""
        self._rest += chunk
        while not self.closed and (self._read_head() if self._at_head else self._read_content()):
            pass
        if self.closed:
            self._rest = b""

    def _read_content(self) -> bool:
        at = self._rest.find(self._delimiter)
        if at < 0:
            # The tail may be the beginning of a delimiter that the next chunk completes.
            self._take(max(0, len(self._rest) - len(self._delimiter) + 1))
            return False
        self._take(at)
        self._rest = self._rest[len(self._delimiter) :]
        if self._open is not None:
            self.parts.append(self._open.finish())
            self._open = None
        self._at_head = True
        return True

    def _take(self, count: int) -> None:
        if self._open is not None:
            self._open.add(self._rest[:count])
        self._rest = self._rest[count:]

    def _read_head(self) -> bool:
        if self._rest.startswith(b"--"):
            self.closed = True
            return False
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            # A head without end is no multipart: `closed` without parts makes that visible.
            self.closed = len(self._rest) > _HEAD_LIMIT
            return False
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        self._open = _OpenPart(_find(_NAME, head), _find(_FILENAME, head))
        self._at_head = False
        return True


def _find(pattern: re.Pattern[bytes], head: bytes) -> str | None:
    found = pattern.search(head)
    return found[1].decode("utf-8", "replace") if found else None
