"""Patterns and prefixes: what they name, and nothing beside it."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing import Operations, Prefixes, loosely

PATHS = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=5).map(
    lambda segments: "/" + "/".join(segments)
)


@pytest.mark.parametrize(
    ("pattern", "method", "path", "allowed"),
    [
        ("GET /v1/x", "GET", "/v1/x", True),
        ("GET /v1/x", "POST", "/v1/x", False),
        ("GET /v1/x", "get", "/v1/x", False),
        ("GET /v1/x", "GET", "/v1/x/", False),
        ("GET /v1/x", "GET", "/v1/X", False),
        ("GET,POST /v1/*", "POST", "/v1/x", True),
        ("GET,POST /v1/*", "POST", "/v1/x/y", False),
        ("GET /v1/a*z", "GET", "/v1/abz", True),
        ("GET /v1/a*z", "GET", "/v1/ab/z", False),
        ("* /**", "DELETE", "/", True),
        ("* /**", "DELETE", "/a/b", True),
        ("POST /**/pay", "POST", "/pay", True),
        ("POST /**/pay", "POST", "/a/b/pay", True),
        ("POST /**/pay", "POST", "/a/pay/b", False),
        ("POST /a/**", "POST", "/a", True),
        ("POST /a/**", "POST", "/ab", False),
        ("GET /a.b", "GET", "/axb", False),
        ("DELETE /v1/*", "DELETE", "/v1/", False),
        ("DELETE /v1/x*", "DELETE", "/v1/x", True),
        ("GET /v1/", "GET", "/v1/", True),
        ("GET /v1/**", "GET", "/v1/", True),
        ("GET /*", "GET", "/", False),
    ],
)
def test_a_list_of_what_is_permitted_is_exact(
    pattern: str, method: str, path: str, *, allowed: bool
) -> None:
    assert Operations.parse(pattern).allows(method, path) is allowed


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/sky", "/V1/Sky", "/v1/sky/", "/v1/sky.", "/v1/sky ", "/v1. /sky", "/v1/ sky"),
        *("/v1/sky.json", "/v1/sky.a.b", "/v1/\N{LATIN SMALL LETTER LONG S}ky", "/v1/s\u212ay"),
        *("/v1/s\u200bky", "/v1/\N{FULLWIDTH LATIN SMALL LETTER S}ky", "/v1/sk\u00fd"),
    ],
)
def test_a_list_of_what_needs_care_takes_in_what_a_server_might_ignore(path: str) -> None:
    assert Operations.parse("POST /v1/sky").covers("POST", loosely(path))


@pytest.mark.parametrize("path", ["/v1", "/v1/skies", "/v1/sky/blue", "/v1/.sky", "/v1/s.ky/"])
def test_it_does_not_take_in_everything(path: str) -> None:
    assert not Operations.parse("POST /v1/sky").covers("POST", loosely(path))


def test_a_wildcard_covers_a_segment_that_holds_nothing_ascii() -> None:
    assert Operations.parse("POST /a/*/pay").covers("POST", loosely("/a/\u65e5\u672c/pay"))


@given(PATHS)
def test_what_is_allowed_is_covered(path: str) -> None:
    for pattern in ("* /**", f"GET {path}", "GET /**/a", "GET /*/**"):
        operations = Operations.parse(pattern)
        assert operations.covers("GET", loosely(path)) or not operations.allows("GET", path)


@pytest.mark.parametrize(
    "text", ["", "GET", "GET x", "/x", "get /x", "GET,/x", "GET  /x", "GET /x y", ", /x"]
)
def test_what_is_not_an_operation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected METHOD"):
        Operations.parse(text)


@given(st.lists(PATHS, unique=True), PATHS)
def test_the_longest_prefix_that_ends_with_a_segment_wins(prefixes: list[str], path: str) -> None:
    fitting = [p for p in prefixes if path == p or path.startswith(f"{p}/")]
    found = Prefixes((p, p) for p in prefixes).find(path)
    assert found == max(fitting, key=len, default=None)


@pytest.mark.parametrize(
    "path", ["/PAY", "/Pay/x", "/pay./x", "/pay%20/x", "/\N{FULLWIDTH LATIN SMALL LETTER P}ay/x"]
)
def test_a_prefix_in_another_spelling_is_nobodys(path: str) -> None:
    routes = Prefixes([("/", "root"), ("/pay", "pay")])
    assert routes.find(unquote(path)) is None
    assert Prefixes([("/pay", "pay"), ("/x", "x")]).find(unquote(path)) is None


def test_prefixes_that_differ_in_case_alone_are_told_apart() -> None:
    routes = Prefixes([("/Pay", "Pay"), ("/pay", "pay"), ("/Other/", "other")])
    assert [routes.find(path) for path in ("/Pay/x", "/pay/x", "/PAY/x", "/Other/x")] == [
        *("Pay", "pay", None, "other"),
    ]


def test_the_root_prefix_takes_what_no_other_does() -> None:
    routes = Prefixes([("/", "root"), ("/a/", "a")])
    assert [routes.find(path) for path in ("/", "/a", "/a/", "/a/b", "/ab")] == [
        "root",
        "a",
        "a",
        "a",
        "root",
    ]
    assert Prefixes([("/", "root")]).find("/x") == "root"
