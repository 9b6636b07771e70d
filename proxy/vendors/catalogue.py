"""A vendor's documented operations: which template a path belongs to. Pure after loading.

Logs and metrics must hold no patient, account or Aadhaar number, and paths do. What is logged is
therefore the vendor's template (`/dr/v1/patient/{patient_id}`); of a path that is in no list, only
the words that the vendor's own templates use, with `{}` for everything else.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_END = "/"  # cannot be a segment
_ANY = "{}"
_SEGMENTS_AT_MOST = 32


class Catalogue:
    """The templates of one vendor, as a tree of segments."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._root: dict[str, Any] = {}
        self._words: set[str] = {""}
        for template in templates:
            self._add(template)

    def _add(self, template: str) -> None:
        node = self._root
        for segment in template.split("/")[1:]:
            variable = segment.startswith("{")
            node = node.setdefault(_ANY if variable else segment, {})
            if not variable and not segment.isdigit():
                self._words.add(segment)
        node[_END] = template

    def template(self, path: str) -> str:
        """Return the template of a path (percent-decoded), with the unknown parts masked."""
        segments = path.split("/", _SEGMENTS_AT_MOST + 1)[1:]
        if len(segments) > _SEGMENTS_AT_MOST:
            return "/{}"  # nobody's operation: a log line need not be as long
        found = _walk(self._root, segments, 0)
        if found is not None:
            return found
        return "".join(f"/{part if part in self._words else _ANY}" for part in segments)


def _walk(node: dict[str, Any], segments: list[str], at: int) -> str | None:
    """Follow literal segments first, variables second, and come back from dead ends."""
    if at == len(segments):
        found: str | None = node.get(_END)
        return found
    segment = segments[at]
    literal = node.get(segment) if segment != _END else None
    if literal is not None and (found := _walk(literal, segments, at + 1)) is not None:
        return found
    variable = node.get(_ANY) if segment else None
    return None if variable is None else _walk(variable, segments, at + 1)


def rows(name: str) -> list[dict[str, str]]:
    """Read one of the operation lists beside this module (tab-separated, with a header line)."""
    text = files(__package__).joinpath(f"{name}.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))
