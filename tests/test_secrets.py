"""Secrets: read from where they are said to be, shown by `reveal` alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import PydanticCustomError

from proxy.secrets import Secret, SecretError, parse

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-5f1d"


def test_a_literal_is_revealed_and_never_shown() -> None:
    secret = parse(CANARY)
    assert secret.reveal() == CANARY
    shown = f"{secret} {secret!r} {[secret]} {copy.copy(secret)}"
    assert CANARY not in shown


def test_a_variable_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = parse({"env": "CANARY_VARIABLE"})
    assert secret.missing() == "the environment variable CANARY_VARIABLE is not set"
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)
    assert secret.missing() is None
    assert secret.reveal() == CANARY
    assert not secret.reload()


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_one_trailing_newline_of_a_file_is_removed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(f"{CANARY}{ending}".encode())
    assert parse({"file": str(path)}).reveal() == CANARY


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one")
    secret = parse({"file": str(path)})
    assert secret.reveal() == "one"
    assert not secret.reload()
    path.write_text("two")
    assert secret.reveal() == "one"
    assert secret.reload()
    assert secret.reveal() == "two"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (f"{CANARY}\n\n".encode(), "holds a line break"),
        (f"{CANARY}\nX-Other: 1".encode(), "holds a line break"),
        (f"{CANARY}\xe9".encode("latin-1"), "not ASCII"),
        (f"{CANARY}é".encode(), "not ASCII"),
        (f"{CANARY}\x00".encode(), "holds a line break"),
        (f" {CANARY}".encode(), "begins or ends with a space"),
        (CANARY.encode() * 10_000, "too large"),
    ],
)
def test_what_cannot_be_sent_is_refused_unseen(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=why) as refused:
        Secret.file(str(path)).reveal()
    assert CANARY not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"cannot be read \(No such file or directory\)"):
        Secret.file(str(tmp_path / "none")).reveal()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        12345,
        1.5,
        "",
        " ",
        f"{CANARY}\n",
        f"{CANARY}é",
        [CANARY],
        {},
        {CANARY: None},
        {"env": CANARY},
        {"env": ""},
        {"env": 1},
        {"file": ""},
        {"file": f"{CANARY}\0"},
        {"env": "A", "file": "b"},
        {"value": CANARY},
    ],
)
def test_another_spelling_is_refused_unseen(value: Any) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        parse(value)
    assert "expected {env: NAME}, {file: PATH} or the text in quotes" in refused.value.message()
    assert CANARY not in repr(refused.value)


def test_secrets_written_alike_are_equal() -> None:
    assert Secret.literal("a") == Secret.literal("a") != Secret.literal("b")
    assert Secret.env("A") != Secret.file("A")
    assert len({Secret.env("A"), Secret.env("A"), Secret.env("B")}) == 2
    assert Secret.env("A") != "A"


@pytest.mark.parametrize("text", ["$EKO_ACCESS_KEY", "${EKO_ACCESS_KEY}", "%EKO_ACCESS_KEY%"])
def test_a_variable_that_nobody_expands_is_not_taken_for_the_secret(text: str) -> None:
    with pytest.raises(PydanticCustomError, match=r"expected \{env: NAME\}"):
        parse(text)
