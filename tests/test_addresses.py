"""The values of a configuration: what is read, what is refused, and that no refusal quotes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from proxy import addresses, guard, model, values
from proxy.addresses import Listen, Origin
from proxy.credentials.eka import EkaSettings

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-77ab"
PARSERS: list[Callable[[Any], Any]] = [
    addresses.parse_origin,
    addresses.parse_upstream,
    addresses.parse_web_origin,
    addresses.parse_listen,
    addresses.parse_host,
    addresses.parse_via,
    values.parse_size,
    values.parse_seconds,
    values.parse_seconds_or_none_at_all,
    values.parse_operations,
    values.parse_prefix,
]


@pytest.mark.parametrize("parse", PARSERS)
@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text("htps:/[]@%.1a \\", max_size=12).map(lambda text: f"https://{text}")
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
def test_a_refusal_is_always_a_sentence_of_ours(parse: Callable[[Any], Any], value: Any) -> None:
    message = ""
    try:
        parse(value)
    except PydanticCustomError as error:
        message = error.message()
    assert not message or ": expected " in message


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [f"{CANARY} \\", [CANARY], {CANARY: CANARY}])
def test_a_refusal_never_quotes_the_value(parse: Callable[[Any], Any], value: Any) -> None:
    try:
        read = parse(value)
    except PydanticCustomError as error:
        read = error
    assert CANARY not in repr(read)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://api.eka.care", Origin("https", "api.eka.care", 443, "")),
        ("https://API.Eka.Care/", Origin("https", "api.eka.care", 443, "")),
        (
            "https://staging.eko.in:25004/ekoapi/v3/",
            Origin("https", "staging.eko.in", 25004, "/ekoapi/v3"),
        ),
        ("http://[::1]:8080", Origin("http", "::1", 8080, "")),
        ("http://localhost", Origin("http", "localhost", 80, "")),
    ],
)
def test_an_origin_is_read(text: str, origin: Origin) -> None:
    assert addresses.parse_upstream(text) == origin
    assert addresses.parse_origin(origin) is origin
    assert addresses.parse_origin(str(origin)) == origin


def test_an_origin_leaves_out_what_goes_without_saying() -> None:
    assert addresses.parse_origin("https://a.example:443/b").authority == "a.example"
    assert addresses.parse_origin("http://[::1]:81/b").root == "http://[::1]:81"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "api.eka.care",
        "//api.eka.care",
        "ftp://api.eka.care",
        "https://",
        "https://user@api.eka.care",
        "https://user:pass@api.eka.care",
        "https://api.eka.care?x",
        "https://api.eka.care#x",
        "https://api.eka.care/a/../b",
        "https://api.eka.care/a//b",
        "https://api.eka.care/%2e",
        "https://evil.example\\.eka.care",
        "https://api.eka.care:99999",
        "https://api.eka.care:0",
        "https://api..care",
        "https://-a.care",
        "https://[::1",
        "https://[zz::]",
        "https://[fe80::1%25eth0]",
        " https://api.eka.care",
        "https://api.eka.care\n",
        "https://api.ekа.care",  # noqa: RUF001 - the trap: a Cyrillic letter
        f"https://{'a' * 300}.care",
        443,
    ],
)
def test_what_is_not_an_origin_is_refused(value: Any) -> None:
    with pytest.raises(PydanticCustomError):
        addresses.parse_origin(value)


@pytest.mark.parametrize(
    "text",
    [
        "http://api.eka.care",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://2130706433",
    ],
)
def test_plain_http_stays_on_this_machine(text: str) -> None:
    with pytest.raises(PydanticCustomError, match="plain http"):
        addresses.parse_upstream(text)


def test_a_web_origin_has_no_path() -> None:
    assert str(addresses.parse_web_origin("http://intranet:3000")) == "http://intranet:3000"
    with pytest.raises(PydanticCustomError, match="has a path"):
        addresses.parse_web_origin("https://a.example/b")


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8180", Listen("127.0.0.1", 8180)),
        ("[::1]:0", Listen("::1", 0)),
        ("LocalHost:80", Listen("localhost", 80)),
        ("unix:/run/ekeko.sock", Listen("", 0, "/run/ekeko.sock")),
    ],
)
def test_an_address_is_read(text: str, listen: Listen) -> None:
    assert addresses.parse_listen(text) == listen
    assert str(listen) == text.lower()
    assert addresses.parse_listen(listen) is listen


@pytest.mark.parametrize(
    "value",
    [
        *("", "8180", ":8180", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+80"),
        *("127.0.0.1:٣", "::1:80", "[::1]", "[127.0.0.1]:80", "a b:1", 8180),
        *("unix:", "unix:sock", "unix:/a\0b", "unix:/" + "a" * 107),
    ],
)
def test_what_is_not_an_address_is_refused(value: Any) -> None:
    with pytest.raises(PydanticCustomError, match="is not an address"):
        addresses.parse_listen(value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, *, loopback: bool) -> None:
    assert guard.is_loopback(host) is loopback


@pytest.mark.parametrize("value", ["", "https://a.example", "a.example:80", "a/b", "[::1]", 5])
def test_a_host_is_a_name_by_itself(value: Any) -> None:
    assert addresses.parse_host("Proxy.Internal") == "proxy.internal"
    assert addresses.parse_host("::1") == "::1"
    with pytest.raises(PydanticCustomError, match="is not a host name"):
        addresses.parse_host(value)


@pytest.mark.parametrize("url", ["http://proxy:3128", "http://u:p@10.0.0.1:1/", "http://[::1]:8"])
def test_an_outbound_proxy_is_a_secret(url: str) -> None:
    secret = addresses.parse_via(url)
    assert secret.reveal() == url
    assert url not in repr(secret)
    assert addresses.parse_via({"env": "PROXY"}).kind == "env"


@pytest.mark.parametrize(
    "url", ["proxy:3128", "https://proxy:1", "http://proxy", f"http://u:{CANARY}@", "http://a:1/b"]
)
def test_what_is_not_an_outbound_proxy_is_refused_unseen(url: str) -> None:
    with pytest.raises(PydanticCustomError, match="is not a proxy's URL") as refused:
        addresses.parse_via(url)
    assert CANARY not in repr(refused.value)


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (5, 5), ("5", 5), ("5B", 5), ("2 KiB", 2048), ("64MiB", 64 << 20), ("1GiB", 1 << 30)],
)
def test_a_size_is_read(value: int | str, size: int) -> None:
    assert values.parse_size(value) == size


@pytest.mark.parametrize("value", [-1, True, 1.5, "5MB", "64 mib", "", "-1", "9" * 5000, 10**30])
def test_what_is_not_a_size_is_refused(value: Any) -> None:
    with pytest.raises(PydanticCustomError, match="is not a size"):
        values.parse_size(value)


@pytest.mark.parametrize(
    "value", [-1, True, "5", "5s", None, float("nan"), float("inf"), 10**400, [5]]
)
def test_what_is_not_a_duration_is_refused(value: Any) -> None:
    with pytest.raises(PydanticCustomError, match="is not a duration"):
        values.parse_seconds(value)


def test_only_some_durations_may_be_nothing() -> None:
    assert values.parse_seconds_or_none_at_all(0) == 0
    assert values.parse_seconds(0.5) == 0.5
    with pytest.raises(PydanticCustomError, match="is too short"):
        values.parse_seconds(0)


@pytest.mark.parametrize("prefix", ["/", "/v1", "/v1/", "/a.b/c:d"])
def test_a_prefix_is_kept_as_it_is(prefix: str) -> None:
    assert values.parse_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "value", ["", "v1", "//", "/a//b", "/a/../b", "/.", "/%61", "/a?b", "/a;b", 1]
)
def test_a_prefix_needs_no_decoding(value: Any) -> None:
    with pytest.raises(PydanticCustomError, match="is not a path prefix"):
        values.parse_prefix(value)


def test_a_client_certificate_and_its_key_come_together() -> None:
    assert model.Tls(cert="a", key="b").server_name is None
    with pytest.raises(ValidationError, match="expected both, or neither"):
        model.Tls(cert="a")


def test_every_secret_is_found_with_its_path() -> None:
    settings = EkaSettings.model_validate(
        {
            "kind": "eka",
            "client_id": "a",
            "client_secret": {"env": "B"},
            "workspaces": {"w": {"sharing_key": "c"}},
            "via": "http://proxy:1",
        }
    )
    assert [path for path, _ in settings.secrets()] == [
        ("client_id",),
        ("client_secret",),
        ("workspaces", "w", "sharing_key"),
        ("via",),
    ]
