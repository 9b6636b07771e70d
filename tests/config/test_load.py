"""A whole file's way in: every mistake at once, each at its place, and no value of the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy import config
from proxy.addresses import Listen

if TYPE_CHECKING:
    from collections.abc import Callable

    Mistakes = Callable[[str], list[str]]
    Case = tuple[str, list[str]]
    Load = Callable[[str], config.Settings]

ROUTE = "{listen: '127.0.0.1:1', upstream: 'https://x.example', credential: none}"


def test_every_mistake_shows_at_once_in_a_plain_sentence_at_its_place(
    mistakes: Mistakes, mistake_case: Case
) -> None:
    assert mistakes(mistake_case[0]) == mistake_case[1]


def test_no_value_of_the_file_is_in_the_error(load: Load, mistake_case: Case) -> None:
    with pytest.raises(config.ConfigError) as refused:
        load(mistake_case[0])
    error = refused.value
    for shown in (str(error), repr(error), repr(error.args), repr(error.__dict__)):
        assert "canary" not in shown
        assert "12345678" not in shown


def test_a_file_without_mistakes_becomes_frozen_settings(load: Load) -> None:
    settings = load(f"routes:\n  a: {ROUTE}\nadmin: {{listen: null}}")
    assert settings.routes["a"].listen == Listen("127.0.0.1", 1)
    assert settings.routes["a"].timeout.response == 60
    assert settings.admin.listen is None
    assert settings == load(f"# moved\n\nroutes: {{a: {ROUTE}}}\nadmin: {{listen: null}}")
    with pytest.raises(ValueError, match="frozen"):
        settings.log = settings.log  # type: ignore[misc]


def test_settings_show_no_literal_secret(load: Load) -> None:
    secret = "credentials: {a: {kind: bearer, token: canary-literal}}"
    assert "canary" not in repr(load(f"routes: {{a: {ROUTE}}}\n{secret}"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.yaml", "there is no such file: name one with -c or $EKEKO_CONFIG"),
        (".", "cannot be read (Is a directory): expected a configuration file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_mistake(name: str, message: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load(Path(name))
    (problem,) = refused.value.problems
    assert (problem.line, problem.column, problem.key) == (1, 1, "")
    assert problem.message == message
