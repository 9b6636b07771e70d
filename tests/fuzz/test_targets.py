"""The targets of `scripts/fuzz` hold, for their seeds and a few inputs that never change."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.examples import TARGETS, examples, load


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    target = load(name)
    for seed in target.SEEDS:
        target.run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_a_few_inputs(name: str) -> None:
    target = load(name)

    @settings(
        max_examples=300,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples(target))
    def some(data: bytes) -> None:
        target.run(data)

    some()
