"""One route: what it allows, how it maps paths there and Locations back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy import target as targets
from proxy.addresses import parse_origin
from proxy.credentials.base import Credential
from proxy.errors import ProxyError
from proxy.model import Tls
from proxy.route import Route, Timeouts
from proxy.routing import Operations
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from proxy.vendors import eka, eko

HERE = b"localhost:8180"


class Nothing(Credential):
    kind = "none"


async def pool(upstream: str) -> Pool:
    return Pool(Dialer(parse_origin(upstream), Tls()), now=float, connect_timeout=1)


def route(upstream: str = "https://api.eka.care", **options: Any) -> Route:
    return Route(
        "it",
        upstream=parse_origin(upstream),
        credential=options.pop("credential", Nothing()),
        pool=asyncio.run(pool(upstream)),
        timeout=Timeouts(1, 1, None),
        **options,
    )


# There.


@pytest.mark.parametrize(
    ("raw", "sent", "path", "query"),
    [
        ("/eka/dr/v1", "/dr/v1", "/dr/v1", ""),
        ("/eka", "/", "/", ""),
        ("/eka/", "/", "/", ""),
        ("/eka?a=/eka", "/?a=/eka", "/", "a=/eka"),
        ("/eka/eka?", "/eka?", "/eka", ""),
        ("/eka/%41%20b?c=%2F", "/%41%20b?c=%2F", "/A b", "c=%2F"),
        ("/eka/caf%C3%A9/x", "/caf%C3%A9/x", "/café/x", ""),
    ],
)
def test_a_prefix_is_removed_and_the_rest_stays_as_spelled(
    raw: str, sent: str, path: str, query: str
) -> None:
    found = route(prefix="/eka", strip_prefix=True).strip(targets.parse(raw))
    assert (found.raw, found.path, found.query) == (sent, path, query)


def test_a_prefix_in_another_spelling_is_refused() -> None:
    with pytest.raises(ProxyError) as caught:
        route(prefix="/eka", strip_prefix=True).strip(targets.parse("/%65ka/x"))
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("options", [{}, {"prefix": "/eka"}, {"strip_prefix": True}])
def test_a_path_is_left_alone_unless_its_prefix_is_to_go(options: dict[str, Any]) -> None:
    target = targets.parse("/eka/x?y")
    assert route(**options).strip(target) is target


def test_allow_lists_the_only_operations_that_pass() -> None:
    allow = (Operations.parse("GET /v1/*"), Operations.parse("POST /pay"))
    limited = route(allow=allow)
    assert limited.allows("GET", "/v1/x")
    assert limited.allows("POST", "/pay")
    assert not limited.allows("POST", "/v1/x")
    assert not limited.allows("POST", "/PAY")
    assert not route(allow=()).allows("GET", "/")
    assert route().allows("DELETE", "/anything")


def test_the_host_is_the_upstreams() -> None:
    assert route().host_line == b"Host: api.eka.care\r\n"
    assert route("https://staging.eko.in:25004/ekoapi/v1").host_line == (
        b"Host: staging.eko.in:25004\r\n"
    )
    assert route("http://[::1]:80").host_line == b"Host: [::1]\r\n"


# For the log.


@pytest.mark.parametrize(
    ("options", "raw", "shown"),
    [
        ({}, "/dr/v1/patient/42?name=canary", "/dr/v1/patient/{patient_id}"),
        (
            {"prefix": "/eka", "strip_prefix": True},
            "/eka/dr/v1/patient/42",
            "/dr/v1/patient/{patient_id}",
        ),
        ({"prefix": "/dr"}, "/dr/v1/patient/42", "/dr/v1/patient/{patient_id}"),
        ({"upstream": "https://api.eka.care/dr"}, "/v1/patient/42", "/dr/v1/patient/{patient_id}"),
        ({}, "/dr/v1/patient/caf%C3%A9", "/dr/v1/patient/{patient_id}"),
        ({}, "/canary/42", "/{}/{}"),
    ],
)
def test_a_path_is_shown_as_the_vendors_template(
    options: dict[str, Any], raw: str, shown: str
) -> None:
    credential = Nothing()
    credential.catalogue = eka.CATALOGUE
    assert route(credential=credential, **options).template(targets.parse(raw)) == shown


def test_the_base_path_counts_for_the_template() -> None:
    credential = Nothing()
    credential.catalogue = eko.CATALOGUE
    subject = route("https://staging.eko.in/ekoapi/v3", credential=credential)
    shown = subject.template(targets.parse("/user/account/balance/9962981729"))
    assert shown == "/ekoapi/v3/user/account/balance/{customer_id}"


def test_without_a_vendors_list_everything_is_masked() -> None:
    assert route().template(targets.parse("/dr/v1/patient/42")) == "/{}/{}/{}/{}"


# Back.


@pytest.mark.parametrize(
    ("location", "relocated"),
    [
        ("https://api.eka.care/x?y#z", "http://localhost:8180/x?y#z"),
        ("HTTPS://API.EKA.CARE:443/X%2f", "http://localhost:8180/X%2f"),
        ("//api.eka.care/x", "http://localhost:8180/x"),
        ("https://user@api.eka.care/x", "http://localhost:8180/x"),
        ("https://api.eka.care", "http://localhost:8180/"),
        ("https://api.eka.care?y", "http://localhost:8180/?y"),
        ("/x", "/x"),
        ("x/y", "x/y"),
        ("../x", "../x"),
        ("?y", "?y"),
        ("", ""),
        ("https://evil.example/x", "https://evil.example/x"),
        ("//evil.example/x", "//evil.example/x"),
        ("http://api.eka.care/x", "http://api.eka.care/x"),
        ("https://api.eka.care:8443/x", "https://api.eka.care:8443/x"),
        ("https://api.eka.care.evil.example/", "https://api.eka.care.evil.example/"),
        ("https://api.eka.care@evil.example/", "https://api.eka.care@evil.example/"),
        ("https://[bad/x", "https://[bad/x"),
        ("https://api.eka.care:bad/x", "https://api.eka.care:bad/x"),
        ("https://api.eka.care:99999/", "https://api.eka.care:99999/"),
        ("mailto:a@b", "mailto:a@b"),
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("https://api.eka.care/\xe9", "http://localhost:8180/\xe9"),
        ("https://bucket.s3.amazonaws.com/x?sig=1", "https://bucket.s3.amazonaws.com/x?sig=1"),
    ],
)
def test_a_location_on_the_upstream_leads_back_to_the_listener(
    location: str, relocated: str
) -> None:
    assert route().relocate(location.encode("latin-1"), HERE, b"/") == relocated.encode("latin-1")


@pytest.mark.parametrize(
    ("location", "relocated"),
    [
        ("https://staging.eko.in/ekoapi/v3/x", "http://localhost:8180/eko/x"),
        ("/ekoapi/v3/x?y", "/eko/x?y"),
        ("/ekoapi/v3", "/eko"),
        ("/ekoapi/v3?y", "/eko?y"),
        ("/ekoapi/v31/x", "/ekoapi/v31/x"),
        ("/other", "/other"),
        ("https://staging.eko.in/other", "https://staging.eko.in/other"),
    ],
)
def test_base_path_and_prefix_are_undone_on_the_way_back(location: str, relocated: str) -> None:
    subject = route("https://staging.eko.in/ekoapi/v3", prefix="/eko", strip_prefix=True)
    assert subject.relocate(location.encode(), HERE, b"/") == relocated.encode()


@pytest.mark.parametrize(
    ("location", "relocated"),
    [
        ("/ekoapi/v3", "/"),
        ("/ekoapi/v3?y", "/?y"),
        ("https://staging.eko.in/ekoapi/v3", "http://localhost:8180/"),
    ],
)
def test_a_location_at_the_base_itself_is_the_root(location: str, relocated: str) -> None:
    subject = route("https://staging.eko.in/ekoapi/v3")
    assert subject.relocate(location.encode(), HERE, b"/") == relocated.encode()
