"""What passes, passes byte for byte; what the proxy removes or rewrites, and nothing else."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import Message, ScriptedUpstream, answer, ask, plain_proxy, raw_client

if TYPE_CHECKING:
    from typing import Any

HOP_BY_HOP = [
    ("Connection", "keep-alive, X-Mine"),
    ("X-Mine", "1"),
    ("Keep-Alive", "timeout=5"),
    ("TE", "trailers"),
    ("Proxy-Authorization", "Basic Y2FuYXJ5"),
    ("Proxy-Connection", "keep-alive"),
    ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ("Upgrade", "h2c"),
]
FORWARDING = [
    ("Forwarded", "for=1.2.3.4"),
    ("X-Forwarded-For", "1.2.3.4"),
    ("X-Forwarded-Host", "evil.example"),
    ("x_forwarded_proto", "https"),
]


async def exchange(
    upstreams_answer: bytes = answer(b"ok"),
    fields: tuple[tuple[str, str], ...] | list[tuple[str, str]] = (),
    *,
    method: str = "GET",
    target: str = "/",
    body: bytes = b"",
    **route: Any,
) -> tuple[Message, Message]:
    """Send one request through a plain route: what the upstream got, what the caller got."""
    async with (
        ScriptedUpstream([upstreams_answer]) as upstream,
        plain_proxy(upstream.url + route.pop("base", ""), {"routes": {"plain": route}}) as proxy,
    ):
        got = await ask(proxy.plain, method, target, fields, body)
        return upstream.requests[0], got


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Cb/c",
        "/a%20b",
        "/a+b?c=d+e",
        "/banks/ifsc:KKBK0000261/accounts/1",
        "/x?a=1&a=2&a=1",
        "/x?",
        "/x?q=%2C%2F%2e%2E&r=a/b?c",
        "/x?name=%E0%A4%85&city=M%c3%bcnchen",
        "/~user/!$&'()*,=@",
        "/trailing/",
    ],
)
async def test_a_target_arrives_as_it_was_spelled(target: str) -> None:
    got, _ = await exchange(target=target)
    assert got.target.encode("latin-1") == target.encode()


async def test_a_target_of_raw_bytes_beyond_ascii_is_refused() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        got = await ask(proxy.plain, "GET", "/x?city=M\u00fcnchen")
        assert (got.status, upstream.connections) == (400, [])


async def test_request_fields_keep_their_order_case_and_values() -> None:
    fields = [
        ("X-Zebra", "last; first"),
        ("accept", "*/*"),
        ("X-ALPHA", "a=b,  c"),
        ("X-Repeated", "1"),
        ("locale", "en"),
        ("X-Repeated", "2"),
        ("Cookie", "session=abc"),
        ("X-Latin", "caf\xe9"),
    ]
    got, _ = await exchange(fields=fields)
    passed = [(name, value.encode("latin-1")) for name, value in got.fields]
    assert passed[0][0] == "Host"
    assert passed[1:-1] == [(name, value.encode()) for name, value in fields]
    assert passed[-1][0] == "X-Request-Id"


async def test_answer_fields_keep_their_order_case_and_values() -> None:
    lines = ['ETAG: "x"', "server: them", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Empty: "]
    _, got = await exchange(answer(b"ok", *lines, status="206 Some Of It"))
    assert got.start == "HTTP/1.1 206 Some Of It"
    assert [f"{name}: {value}" for name, value in got.fields][: len(lines)] == lines


async def test_the_upstream_is_named_in_host() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        await ask(proxy.plain, "GET", "/")
        assert upstream.requests[0].all("Host") == [f"127.0.0.1:{upstream.port}"]


async def test_bodies_pass_in_their_own_bytes() -> None:
    binary = bytes(range(256)) * 40
    got, back = await exchange(answer(binary[::-1]), method="POST", body=binary)
    assert got.body == binary
    assert back.body == binary[::-1]


async def test_encoded_bodies_are_not_decoded_either_way() -> None:
    packed = gzip.compress(b"plain" * 1000, mtime=0)
    encoding = ("Content-Encoding", "gzip")
    got, back = await exchange(
        answer(packed, "Content-Encoding: gzip"), [encoding], method="PUT", body=packed
    )
    assert (got.body, got.get("Content-Encoding")) == (packed, "gzip")
    assert (back.body, back.get("Content-Encoding")) == (packed, "gzip")


async def test_an_encoding_nobody_knows_passes_too() -> None:
    got, _ = await exchange(
        fields=[("Content-Encoding", "br, zz")], method="POST", body=b"\x00not brotli"
    )
    assert got.body == b"\x00not brotli"


async def test_a_redirect_is_not_followed() -> None:
    async with ScriptedUpstream([answer()]) as other:
        moved = answer(b"moved", f"Location: {other.url}/x", status="307 Temporary Redirect")
        _, got = await exchange(moved, method="POST", body=b"{}")
        assert got.status == 307
        assert got.get("Location") == f"{other.url}/x"
        assert other.connections == []


async def test_no_cookie_is_kept() -> None:
    answers = [answer(b"", "Set-Cookie: session=canary; Path=/"), answer()]
    async with (
        ScriptedUpstream(answers) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        first = await client.ask("GET", "/")
        assert first.get("Set-Cookie") == "session=canary; Path=/"
        await client.ask("GET", "/")
        assert upstream.requests[1].get("Cookie") is None


# Location. `UP` stands for the upstream's origin, `//UP` for its authority, `DOWN` for the proxy's.


@pytest.mark.parametrize(
    ("base", "route", "location", "expected"),
    [
        ("", {}, "http://UP/a/b?c=%2C#d", "http://localhost/a/b?c=%2C#d"),
        ("", {}, "HTTP://UP/a", "http://localhost/a"),
        ("", {}, "//UP/a", "http://localhost/a"),
        ("", {}, "/a?b=c", "/a?b=c"),
        ("", {}, "sibling?x", "sibling?x"),
        ("", {}, "http://other.example/a", "http://other.example/a"),
        ("", {}, "https://UP/a", "https://UP/a"),
        ("", {}, "http://UP.evil.example/a", "http://UP.evil.example/a"),
        ("", {}, "http://127.0.0.1:1/a", "http://127.0.0.1:1/a"),
        ("", {}, "http://[broken/a", "http://[broken/a"),
        ("/base", {}, "http://UP/base/a", "http://localhost/a"),
        ("/base", {}, "/base/a", "/a"),
        ("/base", {}, "http://UP/base", "http://localhost/"),
        ("/base", {}, "/base", "/"),
        ("/base", {}, "/base?x=1", "/?x=1"),
        ("/base", {}, "/basement/a", "/basement/a"),
        ("/base", {}, "/base//evil.example/x", "/base//evil.example/x"),
        ("/base", {}, "http://UP/elsewhere", "http://UP/elsewhere"),
        ("", {"prefix": "/p", "strip_prefix": True}, "/a", "/p/a"),
        ("", {"prefix": "/p", "strip_prefix": True}, "http://UP/a", "http://localhost/p/a"),
        ("/base", {"prefix": "/p", "strip_prefix": True}, "/base/a", "/p/a"),
        ("", {"prefix": "/p"}, "/p/a", "/p/a"),
        ("", {}, "http://UP\t/a", "http://UP\t/a"),
        ("", {}, "http://127.0.\t0.1:1/a", "http://127.0.\t0.1:1/a"),
        ("", {}, "http://UP", "http://localhost/"),
        ("", {}, "http://UP?x=1", "http://localhost/?x=1"),
    ],
)
async def test_a_location_leads_back_through_the_proxy_where_it_is_the_upstreams_own(
    base: str, route: dict[str, Any], location: str, expected: str
) -> None:
    upstream = ScriptedUpstream([])
    async with upstream:
        here = f"127.0.0.1:{upstream.port}"
        moved = answer(b"", f"Location: {location.replace('UP', here)}", status="302 Found")
        upstream._plays = ([moved],)
        async with plain_proxy(upstream.url + base, {"routes": {"plain": route}}) as proxy:
            got = await ask(proxy.plain, "GET", route.get("prefix", "") + "/start")
    assert got.get("Location") == expected.replace("UP", here)


async def test_a_base_path_and_a_stripped_prefix_make_the_target() -> None:
    got, _ = await exchange(target="/p/a%2Cb?c", base="/base", prefix="/p", strip_prefix=True)
    assert got.target == "/base/a%2Cb?c"


async def test_a_prefix_stays_unless_it_is_to_be_stripped() -> None:
    got, _ = await exchange(target="/p/a", prefix="/p")
    assert got.target == "/p/a"


# Fields of one connection, and of proxies.


async def test_hop_by_hop_fields_stay_on_their_connection() -> None:
    got, _ = await exchange(fields=HOP_BY_HOP)
    assert {name.lower() for name, _ in got.fields} == {"host", "x-request-id"}


async def test_an_answers_hop_by_hop_fields_stay_on_their_connection() -> None:
    lines = ["Keep-Alive: timeout=5", "Connection: keep-alive, X-Mine", "X-Mine: 1", "Upgrade: h2c"]
    lines += ["Proxy-Authenticate: Basic", "Trailer: X-Sum", "X-Kept: 1"]
    _, got = await exchange(answer(b"ok", *lines))
    assert {name for name, _ in got.fields} == {"X-Kept", "X-Request-Id", "Content-Length"}


async def test_forwarding_fields_are_removed_and_none_is_added() -> None:
    got, _ = await exchange(fields=FORWARDING)
    assert not [name for name, _ in got.fields if "orwarded" in name]


async def test_traceparent_passes() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    got, _ = await exchange(fields=[("traceparent", trace), ("tracestate", "a=b")])
    assert got.get("traceparent") == trace
    assert got.get("tracestate") == "a=b"


async def test_a_request_id_is_kept_and_returned() -> None:
    got, back = await exchange(
        answer(b"", "X-Request-Id: the-upstreams-own"), [("x-request-id", "Mine.42:a/b=")]
    )
    assert got.all("X-Request-Id") == ["Mine.42:a/b="]
    assert back.all("X-Request-Id") == ["Mine.42:a/b="]


async def test_a_missing_request_id_is_made_and_no_two_are_alike() -> None:
    pairs = [await exchange() for _ in range(3)]
    for got, back in pairs:
        assert got.get("X-Request-Id") == back.get("X-Request-Id")
    ids = {got.get("X-Request-Id") or "" for got, _ in pairs}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{24}", each) for each in ids)


@pytest.mark.parametrize("malformed", ["", "has space", 'q"uote', "x" * 129, "caf\xe9", "{}"])
async def test_a_malformed_request_id_is_replaced(malformed: str) -> None:
    got, back = await exchange(fields=[("X-Request-Id", malformed)])
    assert re.fullmatch(r"[0-9a-f]{24}", got.get("X-Request-Id") or "")
    assert back.get("X-Request-Id") == got.get("X-Request-Id")


async def test_an_upstream_cannot_speak_with_the_proxys_voice() -> None:
    _, got = await exchange(
        answer(b"no", "X-Ekeko-Error: upstream_timeout", "x-ekeko-error: x", status="502 Bad")
    )
    assert got.status == 502
    assert got.all("X-Ekeko-Error") == []


# Other web origins.


async def test_a_listed_web_origin_may_read_answers_and_others_may_not_ask() -> None:
    page = "http://localhost:3000"
    async with (
        ScriptedUpstream([answer(b"ok", "Access-Control-Allow-Origin: *")]) as upstream,
        plain_proxy(upstream.url, {"access": {"origins": [page]}}) as proxy,
    ):
        got = await ask(proxy.plain, "GET", "/", [("Origin", page)])
        assert got.all("Access-Control-Allow-Origin") == [page]
        wish = [("Origin", page), ("Access-Control-Request-Method", "PUT")]
        preflight = await ask(proxy.plain, "OPTIONS", "/", wish)
        assert preflight.status == 204
        assert preflight.get("Access-Control-Allow-Methods") == "PUT"
        refused = await ask(proxy.plain, "GET", "/", [("Origin", "http://evil.example")])
        assert refused.status == 403
        assert refused.get("Access-Control-Allow-Origin") is None
        assert len(upstream.requests) == 1
