"""THREAT_MODEL.md: no threat without a defence and its test, or a word to the operator."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import NamedTuple

import pytest

from tests.processes import ROOT

TEXT = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ITEM = re.compile(r"^- (Defence|Tests|Left to the operator): ", re.MULTILINE)


class Threat(NamedTuple):
    """A section: its number, title, and what its items say."""

    number: int
    title: str
    items: dict[str, str]


def threats() -> list[Threat]:
    section = TEXT.partition("\n## Threats\n")[2].partition("\n## ")[0]
    found = re.split(r"^#### (\d+)\. (.+)$", section, flags=re.MULTILINE)
    return [
        Threat(int(number), title, dict(_pairs(ITEM.split(rest)[1:])))
        for number, title, rest in zip(found[1::3], found[2::3], found[3::3], strict=True)
    ]


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


@cache
def functions(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("threat", threats(), ids=lambda threat: str(threat.number))
def test_a_threat_has_a_defence_and_its_tests_or_is_the_operators(threat: Threat) -> None:
    items = threat.items
    if "Defence" in items:
        assert NODE.findall(items["Tests"])
    else:
        assert items["Left to the operator"].strip()


def test_every_test_that_is_named_exists() -> None:
    named = NODE.findall(TEXT)
    assert [node for node in named if node[1] not in functions(node[0])] == []
    assert len(named) == TEXT.count("::test_")  # none that is spelled so that it is not seen


def test_numbers_stay_in_order_and_none_is_given_twice() -> None:
    assert [threat.number for threat in threats()] == list(range(1, len(threats()) + 1))
    assert len({threat.title for threat in threats()}) == len(threats())


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md"])
def test_it_is_found_from_where_people_look(name: str) -> None:
    path = ROOT / name
    assert not path.exists() or "(THREAT_MODEL.md)" in path.read_text(encoding="utf-8")
