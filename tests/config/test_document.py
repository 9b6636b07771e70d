"""YAML as people write it: where things stand, and every trap of the format told apart."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from proxy.config import ConfigError
from proxy.config.document import Document, read
from proxy.config.problem import spell

if TYPE_CHECKING:
    from pathlib import Path


def read_bytes(tmp_path: Path, content: bytes) -> Document:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    return read(path)


def problems(tmp_path: Path, content: bytes) -> list[str]:
    try:
        found = read_bytes(tmp_path, content).problems
    except ConfigError as error:
        found = error.problems
    return [str(problem).removeprefix(f"{tmp_path}/c.yaml:") for problem in found]


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (b"a: {b: [1, 2.5, yes, ~, 'no', x]}", {"a": {"b": [1, 2.5, True, None, "no", "x"]}}),
        (b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (b"a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        (b"a: =", {"a": "="}),
        (b"# comment\n---\na: |\n  text\n", {"a": "text\n"}),
        ("é: ü".encode(), {"é": "ü"}),
    ],
)
def test_plain_yaml_becomes_plain_values(tmp_path: Path, content: bytes, data: Any) -> None:
    document = read_bytes(tmp_path, content)
    assert document.data == data
    assert document.problems == []


def test_keys_and_values_have_places(tmp_path: Path) -> None:
    places = read_bytes(tmp_path, b"a:\n  b: [x,\n    y]\n").places
    assert places.at_key(("a", "b"), "")[1:3] == (2, 3)
    assert places.at_value(("a", "b"), "")[1:3] == (2, 6)
    assert places.at_value(("a", "b", 1), "")[1:3] == (3, 5)
    assert places.at_key(("a", "b", "c", "d"), "")[1:3] == (2, 3)
    assert places.at_key(("z",), "")[1:3] == (1, 1)


def test_a_path_is_spelled_as_people_do() -> None:
    assert spell(("routes", "eko", "allow", 0, "x")) == "routes.eko.allow[0].x"
    assert spell(("routes", "a secret?")) == "routes.?"
    assert spell(()) == ""


def test_a_trap_of_yaml_is_told_without_the_value(
    tmp_path: Path, trap_case: tuple[str, list[str]]
) -> None:
    found = problems(tmp_path, trap_case[0].encode())
    assert found == trap_case[1]
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1:1: is empty: expected a mapping with 'routes'"),
        (b"a: \xff", "1:1: is not UTF-8: expected YAML text in UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: is not UTF-8: expected YAML text in UTF-8"),
        (b"a: x\nb: \x00", "2:4: is not valid YAML: it holds a control character"),
        (b"a: " + b"9" * 5000, "1:4: a: is not what it looks like: write it in quotes"),
        (b"#" * ((1 << 20) + 1), "1:1: is too large: expected at most 1 MiB"),
    ],
)
def test_bytes_that_are_no_yaml_are_one_mistake(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    assert problems(tmp_path, content) == [expected]


def test_an_alias_whose_value_is_wrong_is_wrong_twice(tmp_path: Path) -> None:
    assert len(problems(tmp_path, b"a: &x !!int y\nb: *x")) == 2


def test_aliases_of_aliases_end_soon(tmp_path: Path) -> None:
    levels = [b"a0: &a0 [x, x]"]
    levels += [
        b"a%d: &a%d [%b]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
    ]
    began = perf_counter()
    (problem,) = problems(tmp_path, b"\n".join(levels))
    assert "is too large or nested too deeply" in problem
    assert perf_counter() - began < 5
