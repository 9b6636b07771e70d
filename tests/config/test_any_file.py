"""Whatever a file holds: settings or a ConfigError, and none of its values in any message."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxy import config

EXAMPLE = yaml.safe_load(
    (Path(__file__).parents[2] / "config.example.yaml").read_text(encoding="utf-8")
)
CANARY = "canary-9e3c"
KEYS = st.sampled_from(["routes", "credentials", "kind", "listen", "eka", "tls", "allow", "a b"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=4),
)
PIECES = [
    *("routes:", "  a:", "    listen: 1", "  - x", "<<: *a", "&a", "{", "}", "[", "]", "? ", "@"),
    *(": ", "!!int x", "'", '"', "\\U", "|", "%YAML 1.1", "---", "...", "\t", "# x", "*a", "on: 1"),
]
LINES = st.lists(st.sampled_from(PIECES), max_size=12)
WRONG = st.sampled_from(
    [
        CANARY,
        [CANARY],
        {f"{CANARY}?": CANARY},
        {"env": f"{CANARY} "},
        f"{CANARY}\n",
        8361520947,
        None,
        True,
    ]
)
quick = hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def problems(path: Path, text: str) -> list[config.Problem]:
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        settings = config.load(path)
    except config.ConfigError as error:
        return error.problems
    return config.notes(settings)


@quick
@given(st.text() | LINES.map("\n".join) | LINES.map(" ".join))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    for problem in problems(tmp_path / "c.yaml", text):
        assert problem.line >= 1
        assert problem.column >= 1


@quick
@given(TREES)
def test_any_tree_is_read_or_refused(tmp_path: Path, tree: Any) -> None:
    for problem in problems(tmp_path / "c.yaml", yaml.safe_dump(tree)):
        assert "expected" in problem.message or "did you mean" in problem.message


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@quick
@given(
    place=st.sampled_from([place for place in places(EXAMPLE) if place]),
    wrong=WRONG,
    unknown=st.booleans(),
)
def test_a_value_in_a_wrong_place_is_never_shown(
    tmp_path: Path, place: tuple[Any, ...], wrong: Any, *, unknown: bool
) -> None:
    tree = copy.deepcopy(EXAMPLE)
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner["unknown" if unknown and isinstance(inner, dict) else place[-1]] = wrong
    messages = [problem.message for problem in problems(tmp_path / "c.yaml", yaml.safe_dump(tree))]
    assert CANARY not in "".join(messages)
    assert "8361520947" not in "".join(messages)


@pytest.mark.parametrize(
    "start", ["", "*", "&", "!", "!!", "@", "%", "`", '"', "'", "{", "[", "|", ">", "- "]
)
@pytest.mark.parametrize("end", ["", ": x", "'", '"', "}", "]", "!x y", " # x", "\\q"])
def test_an_unquoted_secret_is_never_shown(tmp_path: Path, start: str, end: str) -> None:
    text = f"credentials:\n  a:\n    kind: bearer\n    token: {start}{CANARY}{end}\n"
    assert CANARY not in repr(problems(tmp_path / "c.yaml", text))
