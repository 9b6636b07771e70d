"""What a vendor's answer echoes of the credential does not reach the caller."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.sandbox import (
    SANDBOX_CLIENT_ID,
    SANDBOX_DEVELOPER_KEY,
    SANDBOX_LONG_LIVED_TOKEN,
    Fault,
)
from tests.support import (
    JSON,
    PAYBILL,
    PAYMENT,
    Broken,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    raw_client,
    request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Message, Proxy, RawClient, Running, UpstreamWire

TOKEN = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJla2FjYW5hcnkifQ.c2lnbmF0dXJl"
MASK = "*" * len(TOKEN)
WITH_TOKEN = {
    "routes": {"plain": {"credential": "token"}},
    "credentials": {"token": {"kind": "bearer", "token": TOKEN}},
}


@contextlib.asynccontextmanager
async def attaching(
    upstream: ScriptedUpstream, *changes: dict[str, Any]
) -> AsyncIterator[tuple[Proxy, RawClient]]:
    """A proxy that attaches TOKEN, and a caller of it."""
    listed = {"credentials": {"token": {"origins": [upstream.url]}}}
    async with (
        plain_proxy(upstream.url, WITH_TOKEN, listed, *changes) as proxy,
        raw_client(proxy.plain) as client,
    ):
        yield proxy, client


def framed(piece: bytes, *, chunked: bool = True) -> bytes:
    """Make a chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


async def answered(whole: bytes, *changes: dict[str, Any], method: str = "GET") -> Message:
    """What a caller gets of an answer."""
    async with ScriptedUpstream([whole]) as upstream, attaching(upstream, *changes) as (_, client):
        got = await client.ask(method, "/")
        assert upstream.requests[0].get("Authorization") == f"Bearer {TOKEN}"
        return got


def sent_to(stand_in: Any) -> dict[str, str]:
    """What the last request to a stand-in carried."""
    return {name.decode().lower(): value.decode() for name, value in stand_in.journal[-1].headers}


# Every kind of secret.


async def test_an_eka_token_stays_here(front: Running) -> None:
    front.stand_ins.eka.faults.add(Fault(kind="echo", match="GET /", status=500))
    got = await ask(front.eka, "GET", "/dr/v1/business/entities")
    token = sent_to(front.stand_ins.eka)["auth"]
    assert token not in str(got)
    shown = json.loads(got.body)["headers"]
    assert shown["Authorization"] == "Bearer " + "*" * len(token)
    assert got.get("Echo-auth") == shown["auth"] == "*" * len(token)
    assert shown["client-id"] == SANDBOX_CLIENT_ID  # it names the client, and opens nothing
    assert got.get("Content-Length") == str(len(got.body))


async def test_a_renewed_token_is_the_one_that_stays_here(front: Running) -> None:
    front.stand_ins.eka.faults.add(
        Fault(status=401, match="GET /"), Fault(kind="echo", match="GET /", status=403)
    )
    got = await ask(front.eka, "GET", "/dr/v1/business/entities")
    assert got.status == 403
    assert sent_to(front.stand_ins.eka)["auth"] not in str(got)


async def test_a_refusal_that_is_held_and_then_passed_on_shows_nothing_either(
    front: Running,
) -> None:
    front.stand_ins.eko.faults.add(Fault(kind="echo", status=401))
    got = await ask(front.eko, "GET", "/ekoapi/v3/user/account/balance")
    assert got.status == 401
    assert sent_to(front.stand_ins.eko)["secret-key"][:-1] not in str(got)


async def test_ekos_keys_and_signatures_stay_here(front: Running) -> None:
    front.stand_ins.eko.faults.add(Fault(kind="echo"))
    got = await ask(front.eko, "POST", PAYBILL, [JSON], PAYMENT)
    sent, shown = sent_to(front.stand_ins.eko), json.loads(got.body)["headers"]
    for name in ("developer_key", "secret-key", "request_hash"):
        assert sent[name] not in str(got)
        assert shown[name] == "*" * len(sent[name]) == got.get(f"Echo-{name}")
    assert sent["developer_key"] == SANDBOX_DEVELOPER_KEY
    assert shown["secret-key-timestamp"] == sent["secret-key-timestamp"]


async def test_a_long_lived_token_stays_here(front: Running) -> None:
    bearer = {
        "kind": "bearer",
        "token": SANDBOX_LONG_LIVED_TOKEN,
        "origins": [front.stand_ins.eka_url],
    }
    await front.reload(
        {"credentials": {"static": bearer}, "routes": {"eka": {"credential": "static"}}}
    )
    front.stand_ins.eka.faults.add(Fault(kind="echo"))
    got = await ask(front.eka, "GET", "/dr/v1/business/entities")
    assert sent_to(front.stand_ins.eka)["auth"] == SANDBOX_LONG_LIVED_TOKEN
    assert SANDBOX_LONG_LIVED_TOKEN not in str(got)


# Every place of an answer.


async def test_no_field_of_a_head_shows_it() -> None:
    fields = [
        f'WWW-Authenticate: Bearer error="invalid_token", token="{TOKEN}"',
        f"Set-Cookie: session={TOKEN}; HttpOnly",
        f"Location: /login?token={TOKEN}",
        f"X-{TOKEN}: 1",
    ]
    got = await answered(answer(b"", *fields, status=f"418 no {TOKEN} here"))
    assert TOKEN not in str(got)
    assert got.start == f"HTTP/1.1 418 no {MASK} here"
    assert got.get("Location") == f"/login?token={MASK}"
    assert got.get("Set-Cookie") == f"session={MASK}; HttpOnly"
    assert got.get(f"X-{MASK}") == "1"


@pytest.mark.parametrize(
    ("method", "whole"),
    [
        ("HEAD", f"HTTP/1.1 200 OK\r\nX-Echo: {TOKEN}\r\nContent-Length: 500\r\n\r\n"),
        ("GET", f"HTTP/1.1 204 No Content\r\nX-Echo: {TOKEN}\r\n\r\n"),
        ("GET", f"HTTP/1.1 304 Not Modified\r\nX-Echo: {TOKEN}\r\nETag: x\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_shows_nothing_either(method: str, whole: str) -> None:
    got = await answered(whole.encode(), method=method)
    assert got.get("X-Echo") == MASK


@pytest.mark.parametrize(
    ("start", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", b"<%b>"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n", b"<%b>"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", b"<%b>\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_that_comes_at_once_shows_nothing(start: bytes, body: bytes) -> None:
    start %= len(TOKEN) + 2
    got = await answered(start + body % TOKEN.encode())
    assert got.body == b"<%b>" % MASK.encode()


async def test_chunks_hide_nothing() -> None:
    chunks = b"".join(framed(TOKEN[at : at + 5].encode()) for at in range(0, len(TOKEN), 5))
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n<\r\n"
    got = await answered(start + chunks + b"1\r\n>\r\n0\r\n\r\n")
    assert got.body == b"<%b>" % MASK.encode()


# In pieces.

FIRST, SECOND = b"begin:" + TOKEN[:20].encode(), TOKEN[20:].encode() + b":end"


@pytest.mark.parametrize(
    "line",
    [b"Content-Length: %d\r\n" % len(FIRST + SECOND), b"Transfer-Encoding: chunked\r\n", b""],
)
async def test_what_may_become_an_echo_waits_and_what_cannot_does_not(line: bytes) -> None:
    go_on, chunked = asyncio.Event(), b"chunked" in line

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        head = b"HTTP/1.1 200 OK\r\nX-Echo: %b\r\n%b\r\n" % (TOKEN.encode(), line)
        await wire.send(head, framed(FIRST, chunked=chunked))
        await go_on.wait()
        await wire.send(framed(SECOND, chunked=chunked), b"0\r\n\r\n" if chunked else b"")

    async with ScriptedUpstream(play) as upstream, attaching(upstream) as (_, client):
        await client.send(request("GET", "/"))
        await client.rest_of(b"begin:")
        go_on.set()
        await client.rest_of(b":end")
    assert MASK.encode() + b":end" in client.received
    assert TOKEN[:4].encode() not in client.received


async def test_what_only_began_like_an_echo_arrives_with_the_end() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n" + FIRST)

    async with ScriptedUpstream(play) as upstream, attaching(upstream) as (_, client):
        assert (await client.ask("GET", "/")).body == FIRST


async def test_a_body_that_breaks_off_does_not_look_whole_for_what_was_held_back() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + FIRST)
        await asyncio.sleep(0)

    async with ScriptedUpstream(play) as upstream, attaching(upstream) as (_, client):
        with pytest.raises(Broken):
            await client.ask("GET", "/")


# What stays as it is.


async def test_another_body_passes_byte_for_byte() -> None:
    body = bytes(range(256)) * 2000 + TOKEN[:-1].encode() + TOKEN[1:].encode()
    assert (await answered(answer(body))).body == body


async def test_an_encoded_body_cannot_be_searched() -> None:
    body = gzip.compress(TOKEN.encode())
    got = await answered(answer(body, "Content-Encoding: gzip"))
    assert gzip.decompress(got.body).decode() == TOKEN


async def test_a_route_may_pass_echoes() -> None:
    told = answer(TOKEN.encode(), f"X-Echo: {TOKEN}")
    got = await answered(told, {"routes": {"plain": {"scrub": False}}})
    assert (got.get("X-Echo"), got.body) == (TOKEN, TOKEN.encode())
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed(TOKEN.encode())
    got = await answered(chunks + b"0\r\n\r\n", {"routes": {"plain": {"scrub": False}}})
    assert got.body == TOKEN.encode()


async def test_a_callers_own_credentials_are_its_own() -> None:
    async with (
        ScriptedUpstream([answer(TOKEN.encode())]) as upstream,
        plain_proxy(upstream.url) as proxy,
    ):
        got = await ask(proxy.plain, "GET", "/", [("Authorization", f"Bearer {TOKEN}")])
    assert got.body == TOKEN.encode()


async def test_a_switch_of_protocols_shows_nothing_in_its_head_and_passes_what_follows() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: test/1\r\n"
            b"X-Echo: %b\r\n\r\n%b" % (TOKEN.encode(), TOKEN.encode())
        )

    async with ScriptedUpstream(play) as upstream, attaching(upstream) as (_, client):
        await client.send(request("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "test/1")]))
        assert (await client.head()).get("X-Echo") == MASK
        assert await client.rest_of(TOKEN.encode()) == TOKEN.encode()


# Telling of it.


async def test_the_log_tells_of_it_once_and_shows_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    echo = answer(TOKEN.encode())
    async with (
        ScriptedUpstream([echo, answer(b"else"), echo]) as upstream,
        attaching(upstream) as (_, client),
    ):
        for _ in range(3):
            await client.ask("GET", "/")
    (line,) = [record.getMessage() for record in caplog.records if "echo" in record.getMessage()]
    assert "plain" in line
    assert TOKEN not in caplog.text
