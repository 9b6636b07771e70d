"""Echoes of secrets are masked, wherever a body is cut and however a secret is escaped."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.scrub import SHORTEST, Scrubber, masked, needles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.scrub import Needle

TOKEN = b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJla2FjYW5hcnkifQ.c2lnbmF0dXJl"
SIGNATURE = b"9rE/0zYvO+bB8aU2Vn1Ck7Qw3LrTm5Xh6Jd4Sg0Fe1I="

# Few letters, so that secrets overlap, repeat themselves and begin where others end.
LETTERS = st.sampled_from([b"a", b"b", b"c", b"+"])
SECRETS = st.lists(LETTERS, min_size=1, max_size=24).map(b"".join)
WANTED = st.lists(SECRETS, max_size=3)
REST = st.lists(LETTERS, max_size=10).map(b"".join)


def beginning(spelling: bytes, size: int) -> bytes:
    return spelling[:size]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[tuple[Needle, ...], bytes]:
    """A body that is full of secrets and of their beginnings."""
    wanted = needles(*draw(WANTED))
    parts = [REST]
    for needle in wanted:
        for spelling in needle:
            sizes = st.integers(0, len(spelling))
            parts += [st.just(spelling), sizes.map(partial(beginning, spelling))]
    return wanted, b"".join(draw(st.lists(st.one_of(parts), max_size=8)))


def naive(body: bytes, wanted: tuple[Needle, ...]) -> bytes:
    """The rule, said once more: a byte that belongs to any spelling of any secret is masked."""
    hidden = {
        at + offset
        for needle in wanted
        for spelling in needle
        for at in range(len(body))
        if body.startswith(spelling, at)
        for offset in range(len(spelling))
    }
    return bytes(ord("*") if at in hidden else byte for at, byte in enumerate(body))


def scrubbed(pieces: Iterable[bytes], wanted: tuple[Needle, ...]) -> bytes:
    scrubber = Scrubber(wanted)
    return b"".join([*(scrubber.feed(piece) for piece in pieces), scrubber.end()])


@given(bodies())
def test_every_byte_of_an_echo_is_masked_and_no_other(
    case: tuple[tuple[Needle, ...], bytes],
) -> None:
    wanted, body = case
    assert masked(body, wanted) == naive(body, wanted)


@given(bodies())
def test_it_makes_no_difference_where_a_body_is_cut(case: tuple[tuple[Needle, ...], bytes]) -> None:
    wanted, body = case
    expected = naive(body, wanted)
    for at in range(len(body) + 1):
        assert scrubbed([body[:at], body[at:]], wanted) == expected
    assert scrubbed((body[at : at + 1] for at in range(len(body))), wanted) == expected


@given(bodies(), st.lists(st.integers(0, 100), max_size=6))
def test_it_makes_no_difference_into_how_many_pieces(
    case: tuple[tuple[Needle, ...], bytes], cuts: list[int]
) -> None:
    wanted, body = case
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]  # some pieces are empty
    pieces = [body[start:end] for start, end in pairwise(edges)]
    assert scrubbed(pieces, wanted) == naive(body, wanted)


@given(bodies())
def test_no_more_is_held_back_than_could_begin_an_echo(
    case: tuple[tuple[Needle, ...], bytes],
) -> None:
    wanted, body = case
    scrubber = Scrubber(wanted)
    passed = 0
    for at in range(len(body)):
        passed += len(scrubber.feed(body[at : at + 1]))
        held = body[passed : at + 1]
        assert not held or any(
            spelling.startswith(held) and spelling != held
            for needle in wanted
            for spelling in needle
        )


def test_what_is_not_an_echo_passes_as_it_is() -> None:
    body = b'{"name": "eyJhbG of ordinary text, and e at the en'
    assert masked(body, needles(TOKEN, SIGNATURE)) is body
    assert Scrubber(needles(TOKEN, SIGNATURE)).feed(body) is body


@pytest.mark.parametrize("secret", [TOKEN, SIGNATURE, b"a key with spaces", b"a-b_c.d-e"])
def test_an_echo_is_as_long_as_what_it_echoes(secret: bytes) -> None:
    body = b'{"sent": "%b", "status": 401}' % secret
    assert masked(body, needles(secret)) == b'{"sent": "%b", "status": 401}' % (b"*" * len(secret))


def html(text: str) -> str:
    """As the encoders of some template languages have it."""
    return text.replace("+", "&#43;").replace("/", "&#x2F;").replace("=", "&#61;")


@pytest.mark.parametrize(
    "escape",
    [
        quote,
        quote_plus,
        lambda text: quote(text, safe="").lower().replace(SIGNATURE.decode().lower(), text),
        json.dumps,
        lambda text: json.dumps(text).replace("/", "\\/"),
        lambda text: json.dumps(text).replace("+", "\\u002B").replace("=", "\\u003d"),
        html,
    ],
)
def test_without_its_longest_run_an_escaped_signature_is_worth_nothing(escape: object) -> None:
    assert callable(escape)
    wanted = needles(SIGNATURE)
    (needle,) = wanted
    shown = masked(escape(SIGNATURE.decode()).encode(), wanted)
    assert needle.run not in shown
    assert len(needle.run) >= 3 * SHORTEST


def test_what_could_stand_anywhere_is_not_looked_for() -> None:
    assert needles(b"", b"short", b"1234567") == ()
    assert [tuple(each) for each in needles(b"12345678", b"a+b/c+d/e=")] == [
        (b"12345678", b"12345678"),
        (b"a+b/c+d/e=", b"a+b/c+d/e="),
    ]


def test_nothing_is_shown_of_what_is_looked_for() -> None:
    assert repr(needles(TOKEN)) == "(Needle(),)"
