"""YAML with positions: every value's place in the file, duplicate keys, no surprises.

The text of PyYAML's own errors may hold a piece of the file; only its words are kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from proxy.config.problem import ConfigError, KeyPath, Place, Places, Problem

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20  # bytes
_DEEPEST = 32
_MOST_VALUES = 100_000  # once aliases are written out
_START = Place(1, 1)
_CORE = "tag:yaml.org,2002:"
_SCALARS = frozenset(f"{_CORE}{tag}" for tag in ("str", "int", "float", "bool", "null"))
_DATE = f"{_CORE}timestamp"
_QUOTED = re.compile(r"""(['"])(.*?)\1""")
_HARMLESS = re.compile(r"<[a-z ]+>|[^A-Za-z0-9]")
_HINTS = {
    "alias": "; a text that begins with '*' has to be in quotes",
    "anchor": "; a text that begins with '&' has to be in quotes",
    "tag": "; a text that begins with '!' has to be in quotes",
    "'\\t' that cannot start": "; indent with spaces, not with tabs",
    "cannot start any token": "; a text that begins with this character has to be in quotes",
}


class Document(NamedTuple):
    """A file's content as plain values, where they stand, and what was wrong on the way."""

    data: dict[str, Any]
    places: Places
    problems: list[Problem]


def read(path: Path) -> Document:
    """Read a file; ConfigError if nothing can be told about its content."""
    places = Places(str(path))
    text = _text(path, places)
    found = text if isinstance(text, Problem) else _compose(text, places)
    if isinstance(found, Problem):
        raise ConfigError([found])
    builder = _Builder(places)
    data = builder.build(found, ())
    if builder.broken or not isinstance(data, dict):
        raise ConfigError(
            builder.problems
            or [places.at(_START, (), "is not a mapping: expected a mapping with 'routes'")]
        )
    return Document(data, places, builder.problems)


def _text(path: Path, places: Places) -> str | Problem:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return places.at(_START, (), "there is no such file: name one with -c or $EKEKO_CONFIG")
    except OSError as error:
        why = f"cannot be read ({error.strerror}): expected a configuration file"
        return places.at(_START, (), why)
    if len(content) > _LARGEST:
        return places.at(_START, (), "is too large: expected at most 1 MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return places.at(_START, (), "is not UTF-8: expected YAML text in UTF-8")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, bounded in depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth == _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, places: Places) -> yaml.Node | Problem:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        return _problem(places, _place_of(text, error.position), "it holds a control character")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(_words(part) for part in (error.context, error.problem) if part)
        return _problem(places, _place(mark), words + _hint(words))
    except (ValueError, OverflowError, yaml.YAMLError):
        # PyYAML turns the numbers of escapes and of %YAML into values unchecked.
        mark = loader.get_mark() if loader else None
        return _problem(places, _place(mark), "it holds a wrong number")
    return node or places.at(_START, (), "is empty: expected a mapping with 'routes'")


def _problem(places: Places, place: Place, words: str) -> Problem:
    return places.at(place, (), f"is not valid YAML: {words}")


def _words(text: str) -> str:
    """Keep PyYAML's own words: what it quotes from the file may be a piece of a secret."""
    return _QUOTED.sub(lambda found: found[0] if _HARMLESS.fullmatch(found[2]) else "…", text)


def _hint(words: str) -> str:
    return next((hint for mark, hint in _HINTS.items() if mark in words), "")


def _place(mark: yaml.Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else _START


def _place_of(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, index - before.rfind("\n"))


class _Builder(yaml.constructor.SafeConstructor):
    """Turns nodes into plain values, collecting problems; `broken` if it had to stop."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.problems: list[Problem] = []
        self.broken = False
        self._places = places
        self._left = _MOST_VALUES

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """Give a node's value; None, and a problem, where there is none."""
        self._left -= 1
        if self.broken or self._left < 0 or len(path) > _DEEPEST:
            self._stop(node)
            return None
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return [self._item(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        return self._report(node, path, "has a tag: expected plain YAML, without '!'")

    def _stop(self, node: yaml.Node) -> None:
        if not self.broken:
            self.broken = True
            message = "is too large or nested too deeply, its aliases written out"
            self.problems.append(self._places.at(_place(node.start_mark), (), message))

    def _report(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self._places.note(path, _place(node.start_mark), _place(node.start_mark))
        self.problems.append(self._places.at_value(path, message))

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self._places.note(path, _place(node.start_mark), _place(node.start_mark))
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        built: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if (key := self._key(key_node, path)) is None:
                continue
            place = _place(key_node.start_mark)
            if key in built:
                message = f"is given twice: expected once, as on line {lines[key]}"
                self.problems.append(self._places.at(place, (*path, key), message))
                continue
            lines[key] = place.line
            self._places.note((*path, key), place, _place(value_node.start_mark))
            built[key] = self.build(value_node, (*path, key))
        return built

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """Give a key's text; None, and a problem, where it is not text."""
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_CORE}str":
            return str(node.value)
        message = "has a key that is not text: expected text, so write it in quotes"
        if node.tag == f"{_CORE}merge":
            message = "has a merge key '<<': expected the keys themselves"
        elif node.tag == f"{_CORE}bool" and node.value.lower() in self.bool_values:
            message = (
                f"has the key {node.value}, which YAML reads as true or false: "
                "expected text, so write it in quotes"
            )
        self.problems.append(self._places.at(_place(node.start_mark), path, message))
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            if node.tag in _SCALARS or node.tag == _DATE:
                return self.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError):
            return self._report(node, path, "is not what it looks like: write it in quotes")
        if node.tag == f"{_CORE}value":
            return str(node.value)
        return self._report(node, path, "has a tag: expected plain YAML, without '!'")
