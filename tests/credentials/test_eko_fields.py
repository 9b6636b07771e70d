"""The text of signed fields: read once, the same whichever way they come."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.eko_fields import literal_fields
from proxy.errors import ProxyError
from tests.credentials.support import FORM, outgoing

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(TEXTS, TEXTS)
def test_json_form_and_query_tell_the_same_text(first: str, second: str) -> None:
    fields = {"a": first, "b": second}
    form = urlencode(fields)
    names = list(fields)
    assert literal_fields(outgoing(body=json.dumps(fields).encode()), names) == fields
    assert literal_fields(outgoing(body=form.encode(), content_type=FORM), names) == fields
    assert literal_fields(outgoing(query=form), names) == fields


@given(st.binary(max_size=200), st.sampled_from([b"", FORM, b"text/plain", b"application/json"]))
def test_no_body_is_stumbled_over(body: bytes, content_type: bytes) -> None:
    request = outgoing(body=body, content_type=content_type, query="a=%ff&b")
    codes = set()
    try:
        found = literal_fields(request, ["a", "b"])
    except ProxyError as error:
        codes.add(error.code)
    else:
        assert found.keys() == {"a", "b"}
    assert codes <= {"bad_request", "signing_input_missing"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(JSON_VALUES)
def test_only_texts_and_numbers_at_the_top_count(value: object) -> None:
    body = json.dumps({"a": value, "deep": {"b": "1"}}).encode()
    if "Infinity" in body.decode():
        return
    found = literal_fields(outgoing(body=body), ["a", "b"])
    assert "b" not in found
    assert ("a" in found) == (isinstance(value, str | int | float) and not isinstance(value, bool))


def test_an_empty_text_is_kept_apart_from_none() -> None:
    assert literal_fields(outgoing(query="a=&b"), ["a", "b", "c"]) == {"a": "", "b": ""}


def test_names_are_exact() -> None:
    assert literal_fields(outgoing(query="Amount=1&amount%20=2&amoun%74=3"), ["amount"]) == {
        "amount": "3"
    }


def test_no_body_at_all_is_none_to_read() -> None:
    assert literal_fields(outgoing(body=b"", query="a=1"), ["a"]) == {"a": "1"}
    assert literal_fields(outgoing(body=None, query="a=1"), ["a"]) == {"a": "1"}


def test_a_field_of_raw_utf8_in_a_form_is_read_as_such() -> None:
    request = outgoing(body="a=é".encode(), content_type=FORM)
    assert literal_fields(request, ["a"]) == {"a": "é"}


@pytest.mark.parametrize("count", [999, 1000])
def test_a_thousand_fields_are_few_enough(count: int) -> None:
    query = "&".join(["a=1"] + ["b=2"] * (count - 1))
    assert literal_fields(outgoing(query=query), ["a"]) == {"a": "1"}


def test_a_field_that_stands_twice_with_one_text_is_no_conflict() -> None:
    request = outgoing(body=b'{"a":"5","a":5}', query="a=5&a=5")
    assert literal_fields(request, ["a"]) == {"a": "5"}
