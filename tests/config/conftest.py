"""Configurations written on the spot."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from proxy import config

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.config import Settings

CASES = {"mistake_case": "mistakes.txt", "trap_case": "traps.txt"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for them the cases of a file."""
    for fixture, name in CASES.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, cases(name), ids=lambda case: case[1][0])


def cases(name: str) -> list[tuple[str, list[str]]]:
    """Read blocks of YAML, each followed by its mistakes behind `! `."""
    read = []
    for block in (Path(__file__).parent / name).read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip("\n").split("\n")
        text = "\n".join(line for line in lines if not line.startswith("! "))
        read.append((text, [line[2:] for line in lines if line.startswith("! ")]))
    return read


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """Load a text, as `c.yaml` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"

    def from_text(text: str) -> Settings:
        path.write_text(dedent(text), encoding="utf-8", newline="")
        path.chmod(0o600)
        return config.load(path.relative_to(tmp_path))

    return from_text


@pytest.fixture
def mistakes(load: Callable[[str], Settings]) -> Callable[[str], list[str]]:
    """Give a text's mistakes as they are printed, without the file's name."""

    def of_text(text: str) -> list[str]:
        with pytest.raises(config.ConfigError) as refused:
            load(text)
        assert refused.value.__context__ is None
        return [str(problem).removeprefix("c.yaml:") for problem in refused.value.problems]

    return of_text
