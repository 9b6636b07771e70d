"""Secret values: where they come from, and how they stay out of sight.

A value that holds a secret is written in one of three ways: `{env: NAME}`, `{file: PATH}` (one
trailing newline removed; read again when the file changes), or the literal text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

_UNEXPANDED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|\$\{[^}]*\}|%[A-Za-z_]+%")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# No file's or variable's usual name: the secret itself, written in its source's place.
_LOOKS_LIKE_A_SECRET = re.compile(r"(?=.*[0-9])(?=.*[a-z])[^/.]{20,}")
_LARGEST = 64 << 10


class SecretError(Exception):
    """A secret that cannot be read. The text names its source, never its value."""


class Secret:
    """A secret and its source. Only `reveal` shows the value; `repr` and `str` never do.

    Two are equal when they are written alike, so an unchanged credential survives a reload.
    """

    __slots__ = ("_value", "kind", "source")

    def __init__(self, kind: str, source: str, value: str | None = None) -> None:
        self.kind = kind
        self.source = source
        self._value = value

    @classmethod
    def literal(cls, value: str) -> Secret:
        """Hold a value that stands in the configuration itself."""
        return cls("literal", "the configuration", value)

    @classmethod
    def env(cls, name: str) -> Secret:
        """Take the value from an environment variable."""
        return cls("env", name)

    @classmethod
    def file(cls, path: str) -> Secret:
        """Take the value from a file, read again by `reload`."""
        return cls("file", path)

    def __repr__(self) -> str:
        return f"Secret({self.kind}: {self._place})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._written() == other._written()

    def __hash__(self) -> int:
        return hash(self._written())

    def reveal(self) -> str:
        """Return the value; SecretError if there is none or it cannot be sent in a header."""
        if self._value is None:
            self._value = self._read()
        return self._value

    def reload(self) -> bool:
        """Read a file's value again (blocking); True if it changed. SecretError as `reveal`."""
        if self.kind != "file":
            return False
        value = self._read()
        changed = value != self._value
        self._value = value
        return changed

    def renew(self, value: str) -> None:
        """Take a value that another process has read."""
        self._value = value

    def missing(self) -> str | None:
        """Say why there is no value just now, None if there is one. For notes, not for errors."""
        try:
            self.reveal()
        except SecretError as error:
            return str(error)
        return None

    @property
    def _place(self) -> str:
        """Name the source, unless it may be the secret itself."""
        return "(not shown)" if _LOOKS_LIKE_A_SECRET.fullmatch(self.source) else self.source

    def _written(self) -> tuple[str, str, str | None]:
        return self.kind, self.source, self._value if self.kind == "literal" else None

    def _read(self) -> str:
        value = self._from_env() if self.kind == "env" else self._from_file()
        if wrong := _flaw(value):
            place = "environment variable" if self.kind == "env" else "file"
            raise SecretError(f"the {place} {self._place} {wrong}")
        return value

    def _from_env(self) -> str:
        value = os.environ.get(self.source)
        if value is None:
            raise SecretError(f"the environment variable {self._place} is not set")
        return value

    def _from_file(self) -> str:
        try:
            with Path(self.source).open("rb") as file:
                content = file.read(_LARGEST + 1)
        except OSError as error:
            why = error.strerror
            raise SecretError(f"the file {self._place} cannot be read ({why})") from None
        if len(content) > _LARGEST:
            raise SecretError(f"the file {self._place} is too large for a secret")
        # Bytes that are not ASCII turn into a character that is not either, which is then refused.
        return re.sub(r"\r?\n\Z", "", content.decode(errors="replace"))


def _flaw(value: str) -> str | None:
    """Say what keeps a value from being sent in a header."""
    if not value:
        return "is empty"
    if not value.isascii() or not value.isprintable():
        return "holds a line break or a character that is not ASCII"
    if value != value.strip():
        return "begins or ends with a space"
    return None


def parse(value: Any) -> Secret:
    """Read one of the three spellings; the errors of a wrong one never show it."""
    if isinstance(value, Secret):
        return value
    if isinstance(value, str):
        return _parse_literal(value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, source),) = value.items()
        if kind == "env" and isinstance(source, str) and _ENV_NAME.fullmatch(source):
            return Secret.env(source)
        if kind == "file" and isinstance(source, str) and source and source.isprintable():
            return Secret.file(source)
    raise PydanticCustomError(
        "secret", "is not a secret: expected {env: NAME}, {file: PATH} or the text in quotes"
    )


def _parse_literal(value: str) -> Secret:
    if _UNEXPANDED.fullmatch(value):
        raise PydanticCustomError(
            "secret", "looks like a shell's variable, which is not expanded: expected {env: NAME}"
        )
    if wrong := _flaw(value):
        raise PydanticCustomError(
            "secret",
            "{wrong}: expected {env: NAME}, {file: PATH} or the text in quotes",
            {"wrong": wrong},
        )
    return Secret.literal(value)
