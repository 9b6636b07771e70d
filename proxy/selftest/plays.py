"""What the recorder may answer: an ordinary vendor, a broken one, and one that means harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.selftest.recorder import Arrived, Play

FLOOD: Final = 128 << 20  # bytes that a vendor sends to who does not read
BOMB: Final = gzip.compress(bytes(8 << 20))


def answer(body: bytes = b"ok", *lines: str, status: str = "200 OK") -> bytes:
    """Write an answer that is in order."""
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def raw(*lines: str, body: bytes = b"") -> bytes:
    """Write an answer to the byte."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def then_close(data: bytes) -> Play:
    """Answer with these bytes, then end the connection in order."""

    async def play(_: Arrived, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return play


async def _never(_: Arrived, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _without_end(_: Arrived, writer: asyncio.StreamWriter) -> None:
    """Begin a head and never end it."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: %b\r\n" % (b"x" * 1000) * 60)
        await writer.drain()


async def _interim_without_end(_: Arrived, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
        await writer.drain()


async def _huge(_: Arrived, writer: asyncio.StreamWriter) -> None:
    writer.write(raw("HTTP/1.1 200 OK"))
    for _piece in range(30):
        writer.write(b'"' * (1 << 20))
        await writer.drain()


async def _echo(arrived: Arrived, writer: asyncio.StreamWriter) -> None:
    """Repeat what arrived: every field in a body, and the credential in a field as well."""
    body = b"\n".join(name + b": " + value for name, value in arrived.fields)
    writer.write(answer(body, *(f"X-Echo: {value}" for value in arrived.all("Authorization"))))
    await writer.drain()


class Flood:
    """Sends as fast as the other side takes; `sent` counts bytes."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, _: Arrived, writer: asyncio.StreamWriter) -> None:
        """Answer with a large body."""
        self.sent = 0
        writer.write(raw("HTTP/1.1 200 OK", f"Content-Length: {FLOOD}"))
        piece = bytes(1 << 16)
        while self.sent < FLOOD:
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)


def of_a_vendor(trap: str, flood: Flood) -> Mapping[str, Play]:
    """List the answers of a vendor; `trap` is an origin that nobody may be led to."""
    two = "HTTP/1.1 200 OK"
    chunked = "Transfer-Encoding: chunked"
    hidden = answer(b"for somebody else")
    return {
        "ok": answer(),
        "redirect": answer(b"", f"Location: {trap}/x", status="307 Temporary Redirect"),
        "unauthorised": answer(b"{}", status="401 Unauthorized"),
        "cookie": answer(b"ok", "Set-Cookie: session=of-somebody; Path=/"),
        "voice": answer(b"{}", "X-Ekeko-Error: not_allowed", status="403 Forbidden"),
        "bomb": answer(BOMB, "Content-Encoding: gzip"),
        "cl-and-te": then_close(
            raw(two, "Content-Length: 2", chunked, body=b"2\r\nok\r\n0\r\n\r\n")
        ),
        "two-cls": then_close(raw(two, "Content-Length: 2", "Content-Length: 40", body=b"ok")),
        "te-twice": then_close(raw(two, chunked, chunked, body=b"2\r\nok\r\n0\r\n\r\n")),
        "odd-length": then_close(raw(two, "Content-Length: +2", body=b"ok")),
        "obs-fold": then_close(raw(two, "X-A: b", " c", "Content-Length: 2", body=b"ok")),
        "bare-cr": then_close(raw(two, "X-A: b\rX-B: c", "Content-Length: 2", body=b"ok")),
        "nul": then_close(raw(two, "X-A: b\0c", "Content-Length: 2", body=b"ok")),
        "control-status": then_close(raw("HTTP/1.1 200 O\x1bK", "Content-Length: 2", body=b"ok")),
        "not-http": then_close(b"220 mail.example ESMTP\r\n\r\n"),
        "switch-unasked": then_close(
            raw("HTTP/1.1 101 Switching Protocols", "Upgrade: x", body=b"x")
        ),
        "endless-head": _without_end,
        "endless-interim": _interim_without_end,
        "two-answers": answer() + hidden,
        "body-to-head": raw(two, "Content-Length: 17", body=b"for somebody else"),
        "close": then_close(b""),
        "short": then_close(raw(two, "Content-Length: 100", body=b"ok")),
        "short-chunked": then_close(raw(two, chunked, body=b"2\r\nok\r\n")),
        "bad-chunk": then_close(raw(two, chunked, body=b"2\r\nok\r\nxx\r\n")),
        "never": _never,
        "flood": flood,
        "echo": _echo,
    }


def token(value: str = "a-token", **changes: Any) -> bytes:
    """Write a login's answer."""
    body = {"access_token": value, "refresh_token": "r", "expires_in": 1800} | changes
    return answer(json.dumps(body).encode(), "Content-Type: application/json")


def of_a_login(trap: str, values: Mapping[str, str]) -> Mapping[str, Play]:
    """List what a token endpoint may answer; `values` are tokens to recognise, by play."""
    far = time.time() + 1e12
    return {
        "good": token(values["good"]),
        "empty": answer(b""),
        "html": answer(b"<html>maintenance</html>", "Content-Type: text/html"),
        "no-token": answer(b'{"expires_in": 1800}'),
        "not-utf8": answer(b'{"access_token": "\xff"}'),
        "life-zero": token(expires_in=0),
        "life-negative": token(expires_in=-5),
        "life-text": token(expires_in="soon"),
        "life-huge": token(values["life-huge"], expires_in=10**12, refresh_expires_in=far),
        "line-break": token("a\r\nX-Injected: b"),
        "not-ascii": token("t\u00f6ken"),
        "redirect": answer(b"", f"Location: {trap}/login", status="307 Temporary Redirect"),
        "refused": answer(b'{"error": "no such client"}', status="401 Unauthorized"),
        "too-many": answer(b"{}", "Retry-After: 120", status="429 Too Many Requests"),
        "huge": _huge,
        "hang": _never,
        "cut": then_close(
            raw("HTTP/1.1 200 OK", "Content-Length: 1000", body=b'{"access_token": "')
        ),
    }
