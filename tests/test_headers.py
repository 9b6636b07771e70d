"""Fields that pass, stay behind, or are read: by name, whatever their spelling or order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.eka import EkaTokens
from proxy.errors import ProxyError
from proxy.headers import RequestSorter, ResponseSorter, fold
from proxy.vendors import eka, eko

OWNED = eka.TOKEN_FIELDS | eko.SIGNATURE_FIELDS | EkaTokens.owned
CONSUMED = {"X-Eka-Workspace", "X-Eko-Aadhaar"}
CANARY = b"canary-4711"


def sorter() -> RequestSorter:
    return RequestSorter(OWNED, CONSUMED, is_judged=True)


def passed(*raw: tuple[bytes, bytes]) -> list[bytes]:
    return sorter().sort(raw).lines


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("developer_key", "developer-key"),
        ("Developer.Key", "developer-key"),
        ("SECRET_KEY", "secret-key"),
        ("Jwt_Payload", "jwt-payload"),
        ("X~Y", "x-y"),
    ],
)
def test_names_fold_as_lenient_frameworks_fold_them(name: str, folded: str) -> None:
    assert fold(name) == folded


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"AUTHORIZATION",
        b"auth",
        b"Auth",
        b"Client_Id",
        b"client.id",
        b"Jwt_Payload",
        b"JWT-PAYLOAD",
        b"Developer-Key",
        b"developer.key",
        b"developer_key",
        b"SECRET_KEY",
        b"secret_key",
        b"Secret-Key-Timestamp",
        b"secret_key-timestamp",
        b"request-hash",
        b"Request.Hash",
    ],
)
def test_no_spelling_of_an_owned_field_passes(name: bytes) -> None:
    fields = sorter().sort(
        [(b"X-Before", b"1"), (name, CANARY), (name, CANARY), (b"X-After", b"2")]
    )
    assert fields.lines == [b"X-Before: 1\r\n", b"X-After: 2\r\n"]
    assert CANARY not in fields.read.values()


@pytest.mark.parametrize(
    "name",
    [
        *(b"Keep-Alive", b"Proxy-Authorization", b"proxy_authorization", b"Proxy-Connection"),
        *(b"TE", b"Trailer", b"Upgrade", b"HTTP2-Settings", b"http2_settings"),
        *(b"Transfer_Encoding", b"Content_Length", b"content.length"),
        *(b"Forwarded", b"X-Forwarded-For", b"x_forwarded_host", b"X-Forwarded-Proto"),
        b"X-Forwarded-Anything",
    ],
)
def test_what_belongs_to_one_connection_or_lies_about_the_way_is_removed(name: bytes) -> None:
    assert passed((b"A", b"1"), (name, CANARY)) == [b"A: 1\r\n"]


@pytest.mark.parametrize(
    "name",
    [
        *(b"X-HTTP-Method-Override", b"x_http_method_override", b"X-HTTP-Method"),
        *(b"X-Method-Override", b"X-Original-URL", b"X.Rewrite.Url"),
    ],
)
def test_a_field_that_asks_for_another_method_or_path_is_refused(name: bytes) -> None:
    for _ in range(2):  # it is not learnt
        with pytest.raises(ProxyError) as refused:
            sorter().sort([(b"X-Before", b"1"), (name, b"DELETE")])
        assert refused.value.code == "bad_request"


@pytest.mark.parametrize(
    "name",
    [
        *(b"X-Pt-Id", b"X-Partner-Pt-Id", b"X-Hip-Id", b"x-agent-id", b"x-sess-token"),
        *(b"x-api-key", b"x-auth-token", b"locale", b"device-id", b"X-Encryption", b"accept"),
        *(b"Cookie", b"traceparent", b"Content-Type", b"Origin", b"authority", b"X-Forward"),
    ],
)
def test_a_field_of_the_callers_own_passes(name: bytes) -> None:
    assert passed((name, b" v: ;,\x80")) == [name + b":  v: ;,\x80\r\n"]


def test_what_connection_names_is_removed_before_credentials_are_added() -> None:
    fields = sorter().sort(
        [
            (b"Connection", b"close, Authorization, developer_key"),
            (b"X-Drop", b"1"),
            (b"connection", b"x-drop ,\tX-Other"),
            (b"x-other", b"2"),
            (b"X-Kept", b"3"),
            (b"Authorization", CANARY),
        ]
    )
    assert fields.lines == [b"X-Kept: 3\r\n"]


def test_content_type_named_by_connection_is_taken_for_absent() -> None:
    fields = sorter().sort([(b"Content-Type", b"a/b"), (b"Connection", b"Content-Type")])
    assert fields.lines == []
    assert "content-type" not in fields.read


def test_connection_cannot_hide_what_the_guard_reads() -> None:
    fields = sorter().sort(
        [
            (b"Host", b"evil.example"),
            (b"Origin", b"https://evil.example"),
            (b"Sec-Fetch-Site", b"cross-site"),
            (b"Content-Length", b"5"),
            (b"Connection", b"host, origin, sec-fetch-site, content-length"),
        ]
    )
    assert fields.read["host"] == b"evil.example"
    assert fields.read["origin"] == b"https://evil.example"
    assert fields.read["sec-fetch-site"] == b"cross-site"
    assert fields.read["content-length"] == b"5"
    assert fields.lines == [b"Content-Length: 5\r\n"]  # else the body is a second message


@pytest.mark.parametrize(
    "name",
    [
        *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"X-Request-Id"),
        *(b"Content-Type", b"Origin", b"Sec-Fetch-Site", b"X-Eka-Workspace", b"X-Eko-Aadhaar"),
    ],
)
def test_a_field_that_is_read_may_stand_only_once(name: bytes) -> None:
    with pytest.raises(ProxyError) as caught:
        sorter().sort([(name, CANARY), (name.lower(), CANARY)])
    assert caught.value.code == "bad_request"
    assert CANARY.decode() not in str(caught.value)


def test_two_spellings_of_a_consumed_field_are_two_of_it() -> None:
    with pytest.raises(ProxyError):
        sorter().sort([(b"X-Eka-Workspace", b"a"), (b"x_eka_workspace", b"b")])


@pytest.mark.parametrize("name", [b"X-Eka-Workspace", b"x_eka_workspace", b"X.EKA.WORKSPACE"])
def test_a_consumed_field_is_read_in_any_spelling_and_removed(name: bytes) -> None:
    fields = sorter().sort([(name, b"clinic-a")])
    assert fields.lines == []
    assert fields.read == {"x-eka-workspace": b"clinic-a"}


def test_a_route_without_credential_passes_the_callers_own() -> None:
    raw = [(b"Authorization", b"Bearer own"), (b"developer_key", b"own"), (b"auth", b"own")]
    assert RequestSorter().sort(raw).lines == [b"%b: %b\r\n" % pair for pair in raw]


NAMES = st.text("ABCdef-_.01", min_size=1, max_size=12).map(lambda name: f"x-a{name}".encode())
VALUES = st.binary(max_size=30)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
def test_what_passes_keeps_order_case_and_value(raw: list[tuple[bytes, bytes]]) -> None:
    assert passed(*raw) == [b"%b: %b\r\n" % pair for pair in raw]


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.sampled_from(sorted(OWNED)),
    st.sampled_from("-_."),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_owned_fields_never_pass_among_others(
    raw: list[tuple[bytes, bytes]], name: str, joint: str, upper: list[bool]
) -> None:
    spelled = name.replace("-", joint).replace("_", joint)
    spelled = "".join(c.upper() if up else c for c, up in zip(spelled, upper, strict=False))
    assert passed(*raw, (spelled.encode(), CANARY)) == [b"%b: %b\r\n" % pair for pair in raw]


def test_a_flood_of_different_names_is_not_remembered() -> None:
    subject = sorter()
    for number in range(5000):
        name = b"X-N-%d" % number
        assert subject.sort([(name, b"v")]).lines == [name + b": v\r\n"]
    assert len(subject._fates) <= 512
    assert subject.sort([(b"AUTH-NOT", b"1"), (b"Auth", CANARY)]).lines == [b"AUTH-NOT: 1\r\n"]


def test_an_answers_hop_by_hop_fields_and_copies_of_ours_are_removed() -> None:
    fields = ResponseSorter().sort(
        [
            (b"Date", b"now"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Connection", b"keep-alive, X-Hop"),
            (b"X-Hop", b"1"),
            (b"X-Ekeko-Error", b"no_route"),
            (b"X-Request-Id", b"theirs"),
            (b"Upgrade", b"h2c"),
            (b"Set-Cookie", b"a=1"),
            (b"Set-Cookie", b"b=2"),
            (b"Content-Length", b"0"),
            (b"Location", b"/x"),
        ]
    )
    assert b"".join(fields.lines).splitlines() == [
        b"Date: now",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Content-Length: 0",
        b"Location: /x",
    ]
    assert fields.read["location"] == b"/x"
    assert fields.read["content-length"] == b"0"
