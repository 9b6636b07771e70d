"""What the benchmarks say must follow from what they measured; how long that took is not tested."""

import json
from itertools import chain, repeat
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.processes import Failed, NotInstalled
from benchmarks.rounds import Metric, Reading, Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = [Target("cpu", 0.85, "Go"), Target("cpu", 3, "HAProxy"), Target("cpu", 45)]


def measured(*figures: float) -> "Callable[[], Reading]":
    """Return a contestant whose turns come to these figures, after one for the warm-up."""
    turns = chain([-1.0], figures)
    return lambda: {"cpu": next(turns)}


def absent(why: Exception, *figures: float) -> "Callable[[], Reading]":
    """Return a contestant that ends so, after these figures."""
    turns = chain([-1.0], figures, repeat(None))

    def turn() -> Reading:
        figure = next(turns)
        if figure is None:
            raise why
        return {"cpu": figure}

    return turn


def a_table() -> Table:
    table = Table("small", "Small answers.", (Metric("cpu", "µs"),), TARGETS)
    contestants = {
        "ekeko": measured(30, 40, 200),
        "Go": measured(50, 100, 400),
        "HAProxy": absent(Failed("it ended"), 10),
    }
    table.take_turns(contestants, rounds=3)
    return table


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    assert a_table().ratio("cpu", "ekeko", "Go") == 0.5


def test_targets_are_judged_and_what_was_not_measured_reaches_none() -> None:
    table = a_table()
    assert [table.reached(target) for target in TARGETS] == [(0.5, True), (None, False), (40, True)]


def test_one_that_fails_is_left_out_altogether_and_fails_the_run() -> None:
    table = a_table()
    assert table.failed
    assert table.absent == {"HAProxy": "failed: it ended"}
    assert list(table.samples) == ["ekeko", "Go"]


def test_a_peer_that_is_not_installed_is_no_failure() -> None:
    table = Table("small", "", (Metric("cpu", "µs"),))
    table.take_turns({"Go": absent(NotInstalled("install golang-go"))}, rounds=1)
    table.take_turns({}, rounds=1)
    assert table.failed is False
    assert "Go not measured: install golang-go" in report.terminal(table)


def test_the_order_rotates_and_is_restored_in_the_table() -> None:
    order: list[str] = []
    table = Table("small", "", (Metric("cpu", "µs"),))

    def turn(name: str) -> Reading:
        order.append(name)
        return {"cpu": 1.0}

    table.take_turns({"a": lambda: turn("a"), "b": lambda: turn("b")}, rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert list(table.samples) == ["a", "b"]


def test_markdown_shows_medians_spreads_ratios_and_verdicts() -> None:
    assert report.markdown(a_table()).splitlines() == [
        "### small",
        "",
        "Small answers.",
        "",
        "|  | µs | ekeko ÷ this |",
        "| --- | ---: | ---: |",
        "| ekeko | 40.0 (30.0 to 200.0) |  |",
        "| Go | 100.0 (50.0 to 400.0) | 0.50 |",
        "",
        "- HAProxy failed: it ended",
        "- target: ekeko: µs ≤ 0.85 × Go: 0.50, reached",
        "- target: ekeko: µs ≤ 3 × HAProxy: not measured",
        "- target: ekeko: µs ≤ 45: 40.00, reached",
    ]


def test_json_holds_every_sample() -> None:
    told = json.loads(report.as_json([a_table()], ["one core"]))
    assert told["conditions"] == ["one core"]
    assert told["tables"][0]["samples"]["ekeko"] == {"cpu": [30, 40, 200]}
    assert [target["reached"] for target in told["tables"][0]["targets"]] == [True, False, True]
