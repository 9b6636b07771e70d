"""A vendor's documented operations: which template a path belongs to. Pure after loading.

Logs and metrics must hold no patient, account or Aadhaar number, and paths do. What is logged is
therefore the vendor's template (`/dr/v1/patient/{patient_id}`); of a path that is in no list, only
the words that the vendor's own templates use, with `{}` for everything else.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANY = "{}"
_SEGMENTS_AT_MOST = 32


class _Node:
    """What may follow a path's segments so far, and the template that ends here."""

    __slots__ = ("literals", "template", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.template: str | None = None


class Catalogue:
    """The templates of one vendor, as a tree of segments."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._root = _Node()
        self._words: set[str] = {""}
        for template in templates:
            self._add(template)

    def _add(self, template: str) -> None:
        node = self._root
        for segment in template.split("/")[1:]:
            if segment.startswith("{"):
                node.variable = node = node.variable or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
                if not segment.isdigit():
                    self._words.add(segment)
        node.template = template

    def template(self, path: str) -> str:
        """Return the template of a path (percent-decoded), with the unknown parts masked."""
        segments = path.split("/", _SEGMENTS_AT_MOST + 1)
        del segments[0]
        if len(segments) > _SEGMENTS_AT_MOST:
            return "/{}"  # nobody's operation: a log line need not be as long
        found = _walk(self._root, segments)
        if found is not None:
            return found
        return "".join(f"/{part if part in self._words else _ANY}" for part in segments)


def _walk(node: _Node, segments: list[str]) -> str | None:
    """Follow literal segments first, variables second, and come back from dead ends."""
    for at, segment in enumerate(segments, 1):
        literals, variable = node.literals, node.variable
        if segment in literals:
            if variable is not None and segment:
                return _walk(literals[segment], segments[at:]) or _walk(variable, segments[at:])
            node = literals[segment]
        elif variable is None or not segment:
            return None
        else:
            node = variable
    return node.template


def rows(name: str) -> list[dict[str, str]]:
    """Read one of the operation lists beside this module (tab-separated, with a header line)."""
    text = files(__package__).joinpath(f"{name}.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))
