"""Every failure that the proxy answers by itself: its status, its text, its shape."""

from __future__ import annotations

import json

import pytest

from proxy.errors import _STATUS, _TITLE, INQUIRE, ProxyError, bad_request, problem

# The public table: code, status.
TABLE = {
    "bad_request": 400,
    "caller_unknown": 401,
    "caller_not_allowed": 403,
    "host_not_allowed": 421,
    "origin_not_allowed": 403,
    "not_allowed": 403,
    "no_route": 404,
    "unknown_workspace": 404,
    "request_timeout": 408,
    "body_too_large": 413,
    "signing_input_missing": 422,
    "header_too_large": 431,
    "credential_unavailable": 503,
    "credential_rejected": 503,
    "overloaded": 503,
    "upstream_unreachable": 502,
    "upstream_protocol_error": 502,
    "upstream_closed": 502,
    "upstream_timeout": 504,
}


@pytest.mark.parametrize(("code", "status"), TABLE.items())
def test_each_code_has_its_published_status(code: str, status: int) -> None:
    assert ProxyError(code, "why").status == status


def test_no_code_is_unpublished_but_the_proxys_own_failure() -> None:
    assert _STATUS.keys() - TABLE.keys() == {"internal_error"}
    assert _TITLE.keys() == _STATUS.keys() | {"outcome_unknown"}


def test_a_code_that_does_not_exist_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        ProxyError("no_such_code", "why")


def test_a_problem_answer_has_every_member_that_is_promised() -> None:
    answer = json.loads(problem(bad_request('a "why"'), route="eka", request_id="r1"))
    assert answer == {
        "type": "urn:ekeko:error:bad_request",
        "title": "The request is malformed or ambiguous",
        "status": 400,
        "detail": 'a "why"',
        "code": "bad_request",
        "route": "eka",
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [("upstream_closed", 502), ("upstream_protocol_error", 502), ("upstream_timeout", 504)],
)
def test_an_unknown_outcome_keeps_the_status_and_says_to_inquire(code: str, status: int) -> None:
    error = ProxyError(code, "It broke.", sent=True).as_unknown_outcome()
    answer = json.loads(problem(error, route="eko", request_id="r"))
    assert (answer["code"], answer["status"]) == ("outcome_unknown", status)
    assert answer["detail"] == f"It broke. {INQUIRE}"
    assert "client_ref_id" in answer["detail"]
    assert answer["title"] == "Whether the payment was made is unknown"
