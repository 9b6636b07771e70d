"""What a page of a listed origin is told."""

from __future__ import annotations

import pytest

from proxy import cors

METHOD = (b"Access-Control-Request-Method", b"PUT")
HEADERS = (b"access-control-request-headers", b"content-type,x-eka-workspace")


def test_an_answer_names_one_origin_and_says_that_it_varies() -> None:
    lines = cors.answer_lines(b"http://localhost:3000")
    assert b"Access-Control-Allow-Origin: http://localhost:3000\r\n" in lines
    assert b"Vary: Origin\r\n" in lines
    assert any(b"X-Ekeko-Error" in line for line in lines)


def test_no_answer_lets_a_browser_send_cookies_or_any_origin_read() -> None:
    text = b"".join(
        cors.answer_lines(b"http://a") + (cors.preflight_lines("OPTIONS", [METHOD]) or [])
    )
    assert b"credentials" not in text.lower()
    assert b"*" not in text


def test_a_preflight_is_granted_what_it_asks_for() -> None:
    assert cors.preflight_lines("OPTIONS", [METHOD, HEADERS]) == [
        b"Access-Control-Allow-Methods: PUT\r\n",
        b"Access-Control-Max-Age: 600\r\n",
        b"Access-Control-Allow-Headers: content-type,x-eka-workspace\r\n",
    ]


def test_a_preflight_that_names_no_header_is_granted_none() -> None:
    lines = cors.preflight_lines("OPTIONS", [METHOD])
    assert lines is not None
    assert not any(b"Allow-Headers" in line for line in lines)


@pytest.mark.parametrize(
    ("method", "headers"),
    [("OPTIONS", []), ("OPTIONS", [HEADERS]), ("GET", [METHOD]), ("POST", [METHOD, HEADERS])],
)
def test_what_is_no_preflight_goes_upstream(
    method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    assert cors.preflight_lines(method, headers) is None
