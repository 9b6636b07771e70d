"""What a lock file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_ENTRY = re.compile(r"(?P<pin>\S+ *(?:;[^\\\n]*)?)\\\n(?P<rest>(?:    .*\n)+)")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


class Locked(NamedTuple):
    """One entry: what is pinned, how many files may be it, and who asks for it."""

    pin: Requirement
    hashes: int
    askers: list[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.pin.name)

    @property
    def version(self) -> str:
        """The one version; ValueError if there is not just one."""
        [specifier] = self.pin.specifier
        if specifier.operator != "==" or "*" in specifier.version:
            raise ValueError(str(self.pin))
        return specifier.version

    def is_for(self, environment: dict[str, str]) -> bool:
        """Tell whether it is installed there."""
        return self.pin.marker is None or self.pin.marker.evaluate(environment)


def read(name: str) -> list[Locked]:
    """Read a lock file; AssertionError where a line is anything but an entry's or a comment."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\A(?:#.*\n)+", "", text)
    entries = list(_ENTRY.finditer(text))
    assert "".join(entry[0] for entry in entries) == text, f"{name} has a line of another kind"
    return [_locked(entry) for entry in entries]


def _locked(entry: re.Match[str]) -> Locked:
    lines = entry["rest"].splitlines()
    hashes = [line for line in lines if _HASH.fullmatch(line)]
    others = lines[len(hashes) :]
    assert all(line.startswith("    #") for line in others), others
    words = [line.strip(" #").removeprefix("via").strip() for line in others]
    return Locked(Requirement(entry["pin"]), len(hashes), [word for word in words if word])
