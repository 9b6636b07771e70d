"""What could be read in two ways is refused, and nothing that hides behind it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ScriptedUpstream, answer, ask, plain_proxy, raw_client, settle, until

if TYPE_CHECKING:
    from tests.support import Running

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = [b"POST /x HTTP/%b" % version, b"Host: localhost", *lines]
    return b"\r\n".join([*head, b"", b""]) + body


def get(*lines: bytes, target: bytes = b"/x") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: localhost", *lines, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"
EMPTY = b"0\r\n\r\n"

AMBIGUOUS = {
    "CL and TE": post(b"Content-Length: 4", CHUNKED, body=EMPTY),
    "TE and CL": post(CHUNKED, b"Content-Length: 4", body=EMPTY),
    "two CLs that differ": post(b"Content-Length: 0", b"Content-Length: 44"),
    "two CLs alike": post(b"Content-Length: 0", b"Content-Length: 0"),
    "a list of CLs": post(b"Content-Length: 0, 44"),
    "CL +5": post(b"Content-Length: +5", body=b"hello"),
    "CL -5": post(b"Content-Length: -5"),
    "CL 0x5": post(b"Content-Length: 0x5", body=b"hello"),
    "CL 5 5": post(b"Content-Length: 5 5", body=b"hello"),
    "CL empty": post(b"Content-Length: "),
    "CL beyond all bounds": post(b"Content-Length: 18446744073709551616"),
    "CL that llhttp keeps where there is none": post(b"Content-Length: 18446744073709551615"),
    "CL in other digits": post("Content-Length: \u0665".encode()),
    "TE xchunked": post(b"Transfer-Encoding: xchunked", body=EMPTY),
    "TE chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=EMPTY),
    "TE identity": post(b"Transfer-Encoding: identity", b"Content-Length: 0"),
    "TE gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=EMPTY),
    "TE chunked, chunked": post(b"Transfer-Encoding: chunked, chunked", body=EMPTY),
    "two TEs": post(CHUNKED, CHUNKED, body=EMPTY),
    "two TEs that differ": post(CHUNKED, b"Transfer-Encoding: identity", body=EMPTY),
    "TE in HTTP/1.0": post(CHUNKED, body=EMPTY, version=b"1.0"),
    "TE in HTTP/1.0, kept alive": post(
        CHUNKED, b"Connection: keep-alive", body=EMPTY, version=b"1.0"
    ),
    "TE with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=EMPTY),
    "TE in quotes": post(b'Transfer-Encoding: "chunked"', body=EMPTY),
    "HTTP/2.0": b"GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/2.0, kept alive": (
        b"GET /x HTTP/2.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    ),
    "bare LF": b"GET /x HTTP/1.1\nHost: localhost\n\n",
    "bare LF after a field": b"GET /x HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n",
    "bare CR": b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-A: b\rX-C: d\r\n\r\n",
    "obs-fold": get(b"X-A: b", b" continued"),
    "obs-fold by tab": get(b"X-A: b", b"\tcontinued"),
    "a first field that is folded": b"GET /x HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "space before the colon": post(b"Content-Length : 5", body=b"hello"),
    "space before TE's colon": post(b"Transfer-Encoding : chunked", body=EMPTY),
    "a name with a space": get(b"X A: b"),
    "no name": get(b": b"),
    "no colon": get(b"X-A"),
    "NUL in a value": get(b"X-A: b\x00c"),
    "NUL in a name": get(b"X\x00A: b"),
    "a control character in a value": get(b"X-A: b\x01c"),
    "chunk size 0x5": post(CHUNKED, body=b"0x5\r\nhello\r\n" + EMPTY),
    "chunk size +5": post(CHUNKED, body=b"+5\r\nhello\r\n" + EMPTY),
    "chunk size -1": post(CHUNKED, body=b"-1\r\nhello\r\n" + EMPTY),
    "an oversized chunk size": post(CHUNKED, body=b"fffffffffffffffff\r\nhello\r\n" + EMPTY),
    "a chunk longer than its size": post(CHUNKED, body=b"2\r\nhello\r\n" + EMPTY),
    "chunks ended by bare LF": post(CHUNKED, body=b"5\nhello\n0\n\n"),
    "a chunk extension with a CR": post(CHUNKED, body=b"5;a\rb\r\nhello\r\n" + EMPTY),
    "an absolute target": get(target=b"http://localhost/x"),
    "an absolute target elsewhere": get(target=b"http://evil.example/x"),
    "a target that begins with two slashes": get(target=b"//evil.example/x"),
    "a target without a slash": get(target=b"x"),
    "userinfo": get(target=b"http://localhost@evil.example/x"),
    "a fragment": get(target=b"/x#y"),
    "a space in the target": get(target=b"/x y"),
    "a tab in the target": get(target=b"/x\ty"),
    "dot segments": get(target=b"/a/%2e%2e/x"),
    "an encoded slash": get(target=b"/a%2fx"),
    "a backslash": get(target=b"/a\\x"),
    "two Hosts": get(b"Host: localhost"),
    "two Hosts that differ": get(b"Host: evil.example"),
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT to us": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    "CONNECT to a path": b"CONNECT /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT with a body": (
        b"CONNECT /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n",
    "a version of its own": b"GET /x HTTP/1.2.3\r\nHost: localhost\r\n\r\n",
    "a method with a slash": b"GE/T /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_could_be_read_in_two_ways_is_refused_with_all_that_follows(name: str) -> None:
    """A second request stands in the buffer: it is never answered, and neither arrives.

    Names, values, line ends, chunk sizes, CL with TE, `chunked` that is not last, doubled fields,
    and lengths with a sign, of another base or beyond all bounds are refused by aiohttp's C parser
    (llhttp, strict), and so is whatever follows a request that ends its connection. What is behind
    it: `body.read_framing` for TE in HTTP/1.0, other codings, other versions and the length that
    llhttp keeps where there is none; `target.parse`; `Exchange` for CONNECT.
    """
    async with (
        ScriptedUpstream([answer(b"leaked")] * 3) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(AMBIGUOUS[name] + HIDDEN)
        got = await client.answer()
        assert (got.status, got.get("X-Ekeko-Error")) == (400, "bad_request")
        assert got.get("Connection") == "close"
        assert await client.rest() == b""
        assert upstream.requests == []


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_it_makes_no_difference_how_the_bytes_come(name: str) -> None:
    """The same, byte by byte: nothing is answered but the refusal, nothing arrives whole."""
    async with (
        ScriptedUpstream([answer(b"leaked")] * 3) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        data = AMBIGUOUS[name] + HIDDEN
        with contextlib.suppress(ConnectionError):
            for at in range(len(data)):
                await client.send(data[at : at + 1])
                await asyncio.sleep(0)
        got = await client.rest()
        assert b"leaked" not in got
        assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", got)) <= 1
        assert b"400 Bad Request" in got or got == b""
        assert upstream.requests == []


@pytest.mark.parametrize(
    "smuggler",
    [
        post(b"Content-Length: 44", body=HIDDEN.ljust(44)[:44]),
        post(CHUNKED, body=b"%x\r\n%b\r\n%b" % (len(HIDDEN), HIDDEN, EMPTY)),
        post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
        post(CHUNKED, body=b"5;%b\r\nhello\r\n%b" % (b"x" * 50, EMPTY)),
    ],
)
async def test_a_request_within_a_body_stays_a_body(smuggler: bytes) -> None:
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(smuggler)
        assert (await client.answer()).body == b"one"
        assert [each.method for each in upstream.requests] == ["POST"]
        await client.send(get(target=b"/y"))
        assert (await client.answer()).body == b"two"
        assert [each.target for each in upstream.requests] == ["/x", "/y"]


@pytest.mark.parametrize("trailers", [b"X-T: canary\r\n", b"X-S: y\r\nAuthorization: canary\r\n"])
@pytest.mark.parametrize(
    "how", ["at once", "one by one", "cut before the end", "cut in the trailer"]
)
async def test_a_trailer_is_no_field_of_the_next_request(trailers: bytes, how: str) -> None:
    """aiohttp's parser keeps the last trailer, and takes it for the next request's first field."""
    first = post(CHUNKED, body=b"2\r\nhi\r\n0\r\n%b\r\n" % trailers)
    at = {"cut before the end": len(first) - 1, "cut in the trailer": len(first) - 6}
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        if how == "at once":
            await client.send(first + HIDDEN)
        else:
            await client.send(first[: at.get(how)])
            await settle()
            await client.send(first[at.get(how, len(first)) :])
            await until(lambda: upstream.requests)
            with contextlib.suppress(ConnectionError):
                await client.send(HIDDEN)
        await client.rest()
        assert "canary" not in str(upstream.requests)


@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Length: %d" % len(HIDDEN),
        b"content_length: %d" % len(HIDDEN),
        b"Transfer-Encoding: chunked",
        b"Host: evil.example",
        b"X-Request-Id: canary",
    ],
)
@pytest.mark.parametrize("how", ["at once", "one by one"])
async def test_a_trailer_frames_neither_its_request_nor_the_next(trailer: bytes, how: str) -> None:
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"leaked")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        first = post(CHUNKED, body=b"2\r\nhi\r\n0\r\n%b\r\n\r\n" % trailer)
        await client.send(first + HIDDEN if how == "at once" else first)
        if how == "one by one":
            await until(lambda: upstream.requests or proxy.lines())
            with contextlib.suppress(ConnectionError):
                await client.send(HIDDEN)
        assert b"leaked" not in await client.rest()
        for got in upstream.requests:
            assert (got.target, got.body, got.all("Content-Length")) == ("/x", b"hi", [])
            assert "evil" not in str(got)
            assert "canary" not in str(got)


async def test_a_connection_goes_on_behind_a_chunked_request_without_trailers() -> None:
    async with (
        ScriptedUpstream([answer(b"one")] * 4) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for pieces in ([b"0\r\n\r\n"], [b"2\r\nhi\r\n", b"0\r\n\r\n"], [b"0\r\n\r", b"\n"]):
            await client.send(post(CHUNKED))
            for piece in pieces:
                await settle()
                await client.send(piece)
            assert (await client.answer()).body == b"one"
        assert (await client.ask("GET", "/")).body == b"one"


@pytest.mark.parametrize("start", [b"GET /x HTTP/2.0", b"GET /x HTTP/0.9", b"GET /x(HTTP/1.11.0"])
async def test_what_follows_another_version_of_http_is_not_heard_whatever_refuses_it(
    start: bytes,
) -> None:
    async with (
        ScriptedUpstream([answer(b"leaked")] * 2) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        fields = b"Host: evil.example\r\nConnection: keep-alive\r\n"
        await client.send(start + b"\r\n" + fields + b"\r\n" + HIDDEN)
        got = await client.rest()
        assert got.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))
        assert upstream.requests == []


async def test_a_body_without_framing_is_a_request_of_its_own() -> None:
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"two")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(post() + HIDDEN)
        assert (await client.answer()).body == b"one"
        assert (await client.answer()).body == b"two"
        assert [each.target for each in upstream.requests] == ["/x", "/hidden"]


@pytest.mark.parametrize("trailer", [b"Authorization: Bearer canary", b"developer_key: canary"])
async def test_a_credential_in_a_trailer_arrives_nowhere(front: Running, trailer: bytes) -> None:
    async with raw_client(front.eka) as client:
        await client.send(post(CHUNKED, body=b"2\r\nhi\r\n0\r\n%b\r\n\r\n" % trailer))
        got = await client.answer()
    assert got.status == 200
    assert "canary" not in str(front.stand_ins.eka.journal[-1])


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization : Bearer canary-token",
        b"Authorization: Bearer canary-token\x00",
        b"Authorization: Bearer \x01canary-token",
        b"Authorization: Bearer\r canary-token",
        b" Authorization: Bearer canary-token",
        b"Auth orization: Bearer canary-token",
        b"Authorization; Bearer canary-token",
        b"Authorization: Bearer canary-token" + b"x" * 70_000,
    ],
)
async def test_a_malformed_authorization_is_shown_nowhere(
    front: Running, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await until(lambda: front.stand_ins.eka.logins)
    with caplog.at_level(logging.DEBUG):
        async with raw_client(front.eka) as client:
            await client.send(get(b"X-A: b", line))
            got = await client.rest()
    assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert b"canary" not in got
    assert "canary" not in caplog.text
    assert "canary" not in str(front.lines())


async def test_a_refusal_does_not_touch_other_callers() -> None:
    async with (
        ScriptedUpstream([answer(b"fine")] * 3) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as good,
        raw_client(proxy.plain) as bad,
    ):
        assert (await good.ask("GET", "/")).body == b"fine"
        await bad.send(AMBIGUOUS["CL and TE"] + HIDDEN)
        await bad.rest()
        assert (await good.ask("GET", "/")).body == b"fine"


async def test_no_upstream_repeats_a_credential_to_trace(front: Running) -> None:
    for url in (front.eka, front.eko):
        got = await ask(url, "TRACE", "/")
        assert (got.status, got.get("X-Ekeko-Error")) == (403, "not_allowed")
    assert [line["attempts"] for line in front.lines()] == [0, 0]
