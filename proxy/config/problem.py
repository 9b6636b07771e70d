"""What is wrong with a configuration, and where. No value of a file is ever in here.

Keys are shown, values are not: a value typed in the wrong place may be a secret. A key that does
not look like one (a secret typed as a key) is shown as `?`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
_LOOKS_LIKE_A_SECRET = re.compile(r"(?=.*[0-9])[A-Za-z0-9_.-]{24,}")
_LOOKS_LIKE_A_KEY = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
    r"|(?:[0-9.]{7,15}|\[[0-9A-Fa-f:.]+\]|localhost):[0-9]{1,5}"  # a listener's address
    r"|unix:/[A-Za-z0-9_./-]{1,106}"
)


class Problem(NamedTuple):
    """One mistake; line and column count from 1; `key` is empty for the file as a whole."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` has every mistake, in the file's order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # What is said first of a place is the cause of what is said of it later.
        first: dict[tuple[int, int, str], Problem] = {}
        for problem in problems:
            first.setdefault((problem.line, problem.column, problem.key), problem)
        self.problems = sorted(first.values(), key=lambda p: (p.line, p.column))
        super().__init__("\n".join(map(str, self.problems)))


class Place(NamedTuple):
    """A position in a file, counted from 1."""

    line: int
    column: int


class Places:
    """Where each key of a file stands, and its value."""

    def __init__(self, file: str = "") -> None:
        self.file = file
        self._keys: dict[KeyPath, Place] = {}
        self._values: dict[KeyPath, Place] = {}

    def __eq__(self, other: object) -> bool:
        # Configurations that say the same are equal, wherever in a file they say it.
        return isinstance(other, Places)

    __hash__ = None  # type: ignore[assignment]

    def note(self, path: KeyPath, key: Place, value: Place) -> None:
        """Take down where a key and its value stand (an item of a list is its own key)."""
        self._keys[path] = key
        self._values[path] = value

    def at(self, place: Place, path: KeyPath, message: str) -> Problem:
        """Report what is wrong at a known place."""
        return Problem(self.file, *place, spell(path), message)

    def at_key(self, path: KeyPath, message: str) -> Problem:
        """Report what is wrong at a key; one that is not there, at the mapping that lacks it."""
        return self._problem(self._keys, path, message)

    def at_value(self, path: KeyPath, message: str) -> Problem:
        """Report what is wrong with a value."""
        return self._problem(self._values, path, message)

    def _problem(self, places: dict[KeyPath, Place], path: KeyPath, message: str) -> Problem:
        if path in places:
            return self.at(places[path], path, message)
        above = path[:-1]
        while above and above not in self._keys:
            above = above[:-1]
        return self.at(self._keys.get(above, Place(1, 1)), path, message)


def spell(path: KeyPath) -> str:
    """Write a key path as people do: `routes.eko.allow[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in path)
    return "".join(parts).removeprefix(".")


def _shown(key: str) -> str:
    """Show a key, unless it may be a secret that stands in a key's place."""
    is_key = _LOOKS_LIKE_A_KEY.fullmatch(key) and not _LOOKS_LIKE_A_SECRET.fullmatch(key)
    return key if is_key else "?"
