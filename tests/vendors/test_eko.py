"""What belongs to Eko: its hosts, its refusals, the calls that move money."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.addresses import parse_origin
from proxy.routing import loosely
from proxy.vendors import eko
from proxy.vendors.catalogue import rows


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("https://staging.eko.in", "staging"),
        ("https://staging.eko.in:25004/ekoapi/v1", "staging"),
        ("https://api.eko.in/ekoicici/v3", "production"),
        ("https://api.eko.in:25002", "production"),
        ("https://eko.in", None),
        ("https://staging.eko.in.evil.example", None),
        ("https://x.staging.eko.in", None),
        ("https://api.eka.care", None),
        ("https://localhost", None),
    ],
)
def test_a_host_belongs_to_one_environment_at_most(url: str, environment: str | None) -> None:
    origin = parse_origin(url)
    for each in eko.HOSTS:
        assert eko.is_origin(origin, each) is (each == environment)
        assert not eko.is_origin(origin._replace(scheme="http"), each)


@pytest.mark.parametrize("number", range(2480, 2491))
def test_refusals_at_the_door_are_these_five_numbers(number: int) -> None:
    answer = json.dumps({"status": number, "message": "no"}).encode()
    assert eko.is_refusal(answer) is (2483 <= number <= 2487)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"2485", b"null", b"[2485]", b'"2485"', b"<html>2485</html>", b"{}", b"\xff"),
        *(b'{"status": "2485"}', b'{"status": [2485]}', b'{"status": {"a": 2485}}'),
        *(b'{"status": null}', b'{"status": true}', b'{"status": 0}', b'{"status": NaN}'),
        *(b'{"data": {"status": 2485}}', b'{"status": 2485', b'{"status": 24850}'),
        *(b"[" * 100_000, b'{"status": ' + b"9" * 5000 + b"}"),
    ],
)
def test_whatever_else_comes_is_no_refusal(answer: bytes) -> None:
    assert eko.is_refusal(answer) is False


@given(st.binary(max_size=60))
def test_no_answer_is_stumbled_over(answer: bytes) -> None:
    assert eko.is_refusal(answer) is False


def covered(method: str, path: str) -> bool:
    return any(each.covers(method, loosely(path)) for each in eko.FINANCIAL)


@pytest.mark.parametrize("base", ["/ekoapi/v3", "/ekoicici/v3", "", "/EKOAPI/V3"])
@pytest.mark.parametrize("row", rows("eko"), ids=lambda row: f"{row['method']} {row['path']}")
def test_each_documented_call_moves_money_just_as_its_list_says(
    row: dict[str, str], base: str
) -> None:
    path = base + "/".join(
        "9962981729" if segment.startswith("{") else segment for segment in row["path"].split("/")
    )
    wanted = row["financial"] == "yes"
    assert covered(row["method"], path) is wanted
    assert covered(row["method"], path.upper() + "/") is wanted
    assert not covered("GET", path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ekoapi/v1/billpayments/paybill"),
        ("POST", "/ekoicici/v2/billpayments/paybill"),
        ("POST", "/ekoapi/v2/aeps"),
        ("POST", "/ekoapi/v1/transactions"),
        ("POST", "/ekoapi/v2/transactions"),
        ("PUT", "/ekoapi/v1/agent/user_code:20810200/settlement"),
        ("POST", "/ekoapi/v2/agent/user_code:20810200/settlement"),
        ("POST", "/ekoapi/v1/fund-transfer/initiate"),
        ("POST", "/ekoapi/v1/fundtransfer"),
        ("POST", "/ekoapi/v2/upi/pay"),
    ],
)
def test_older_calls_that_move_money_are_known(method: str, path: str) -> None:
    assert covered(method, path)


@pytest.mark.parametrize(
    "path",
    ["/ekoapi/v1/agent/user_code:1/settlementaccounts", "/ekoapi/v1/customers/1/recipients"],
)
def test_older_calls_that_move_none_are_not(path: str) -> None:
    assert not covered("POST", path)
