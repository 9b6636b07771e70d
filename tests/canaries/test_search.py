"""The search finds each form in which a secret could come out."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.canaries.search import found_in

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = 'canary "4711"\\<\'%+/&=~?>'  # a character of each kind that some form changes

FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "capital hex": lambda text: text.encode().hex().upper().encode(),
    "hex with colons": lambda text: text.encode().hex(":").encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "url-safe base64": lambda text: base64.urlsafe_b64encode(text.encode()),
    "percent": lambda text: quote(text, safe="").encode(),
    "percent in small letters": lambda text: quote(text, safe="").lower().encode(),
    "percent of a path": lambda text: quote(text).encode(),
    "percent of a form": lambda text: quote_plus(text).encode(),
    "a form": lambda text: urlencode({"a": text}).encode(),
    "percent of all": lambda text: b"".join(b"%%%02X" % byte for byte in text.encode()),
    "JSON": lambda text: json.dumps({"a": [text]}).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)).encode(),
    "repr": lambda text: repr({"a": text}).encode(),
    "repr of bytes": lambda text: repr(text.encode()).encode(),
}


@pytest.mark.parametrize("form", FORMS)
@given(before=st.text("abc123", max_size=4), behind=st.text("abc123", max_size=4))
def test_a_form_is_found_wherever_it_stands(form: str, before: str, behind: str) -> None:
    text = FORMS[form](before + SECRET + behind)
    assert found_in(b"... " + text + b" ...", {"it": SECRET})


@pytest.mark.parametrize("form", FORMS)
def test_another_secret_is_not_taken_for_it(form: str) -> None:
    assert found_in(FORMS[form](SECRET.replace("4711", "4712")), {"it": SECRET}) == []


def test_what_is_found_is_named() -> None:
    assert found_in(SECRET.encode().hex().encode(), {"it": SECRET}) == ["it, hex"]
