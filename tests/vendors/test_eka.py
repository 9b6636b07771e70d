"""What belongs to Eka: its hosts, its fields."""

from __future__ import annotations

import pytest

from proxy.addresses import parse_origin
from proxy.vendors import eka


@pytest.mark.parametrize(
    ("url", "theirs"),
    [
        ("https://api.eka.care", True),
        ("https://api.dev.eka.care", True),
        ("https://api-dev.eka.care:8443/base", True),
        ("https://API.EKA.CARE", True),
        ("http://api.eka.care", False),
        ("https://eka.care", False),
        ("https://evileka.care", False),
        ("https://api.eka.care.evil.example", False),
        ("https://bucket.s3.amazonaws.com", False),
        ("https://127.0.0.1", False),
    ],
)
def test_only_ekas_own_hosts_over_tls_are_ekas(url: str, *, theirs: bool) -> None:
    scheme, rest = url.split("://")
    plain = parse_origin(f"https://{rest}")._replace(scheme=scheme)
    assert eka.is_origin(plain) is theirs


def test_the_gateways_identity_field_is_among_those_that_never_pass() -> None:
    assert {"authorization", "auth", "jwt-payload"} == eka.TOKEN_FIELDS
    assert {"jwt-payload"} == eka.GATEWAY_FIELDS


def test_the_login_calls_are_documented_ones() -> None:
    for path in (eka.LOGIN, eka.REFRESH, eka.REFRESH_V1):
        assert eka.CATALOGUE.template(path) == path
        assert "{}" not in path
