"""Inputs for a target without coverage to guide them: seeds, edited here and there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS: Final = ("answers", "paths", "fields", "callers")


class Target(Protocol):
    """A module of this folder: see README.md."""

    SEEDS: Sequence[bytes]
    WORDS: Sequence[bytes]

    def run(self, data: bytes) -> None:
        """Try one input; AssertionError where something does not hold."""
        ...


def load(name: str) -> Target:
    """Import a target."""
    return cast("Target", import_module(f"tests.fuzz.{name}"))


def examples(target: Target) -> st.SearchStrategy[bytes]:
    """Draw inputs."""
    puts = st.sampled_from(target.WORDS) | st.binary(max_size=3)
    edit = st.tuples(st.integers(0, 400), st.integers(0, 4), puts)
    edits = st.lists(edit, max_size=4)
    return st.builds(_edited, st.sampled_from(target.SEEDS), edits) | st.binary(max_size=100)


def _edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, drop, put in edits:
        start = at % (len(data) + 1)
        data = data[:start] + put + data[start + drop :]
    return data
