"""Answers read twice: by the proxy's own reader, and by h11 as a second opinion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import h11

from proxy.upstream.codec import ResponseReader

if TYPE_CHECKING:
    from collections.abc import Iterable

# What the reader leaves out of a head: its framing, what belongs to the connection, and copies of
# what the proxy itself says.
_LEFT_OUT = {
    *(b"connection", b"content-length", b"http2-settings", b"keep-alive", b"proxy-authenticate"),
    *(b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"),
    *(b"upgrade", b"x-ekeko-error", b"x-request-id"),
}


class Asked(NamedTuple):
    """What the answer is to: a method, and the protocol that the request wants to switch to."""

    method: str = "GET"
    upgrade: bytes | None = None


GET = Asked()
HEAD = Asked("HEAD")


class Read(NamedTuple):
    """What became of an answer; once `switched`, `body` is what came behind its head."""

    status: int
    reason: bytes
    lines: tuple[bytes, ...]
    body: bytes
    complete: bool
    keep_alive: bool
    switched: bool = False


def cuts(data: bytes) -> list[tuple[bytes, ...]]:
    """Cut at every byte in turn, and at all of them."""
    halves = [(data[:at], data[at:]) for at in range(1, len(data))]
    return [(data,), *halves, tuple(data[at : at + 1] for at in range(len(data)))]


def read(*pieces: bytes, asked: Asked = GET, eof: bool = False) -> Read | None:
    """Read one answer by a new reader: None if there is no whole head; ProtocolError."""
    reader = ResponseReader()
    reader.expect(*asked)
    return read_with(reader, pieces, eof=eof)


def read_with(reader: ResponseReader, pieces: Iterable[bytes], *, eof: bool = False) -> Read | None:
    """Read one answer by a reader that has been told what to expect."""
    for piece in pieces:
        reader.feed(piece)
    if eof:
        reader.eof()
    head = reader.head
    if head is None:
        return None
    return Read(
        head.status,
        head.reason,
        tuple(line for line in head.fields.lines if line[:15].lower() != b"content-length:"),
        b"".join(reader.take()),
        reader.complete,
        reader.keep_alive,
        reader.switched,
    )


def _asked_by_h11(asked: Asked) -> h11.Connection:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    headers = [(b"Host", b"x")]
    if asked.upgrade is not None:
        headers += [(b"Connection", b"upgrade"), (b"Upgrade", asked.upgrade)]
    connection.send(h11.Request(method=asked.method, target="/", headers=headers))
    connection.send(h11.EndOfMessage())
    return connection


def read_by_h11(data: bytes, asked: Asked = GET) -> Read | None:
    """Read an answer and the end of the stream by h11; RemoteProtocolError if it refuses."""
    connection = _asked_by_h11(asked)
    connection.receive_data(data)
    head, body, complete, ended = None, b"", False, False
    while not complete:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            behind = bytes(connection.trailing_data[0])
            return _read(event, behind, complete=True, keep_alive=False, switched=True)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            complete = True
        elif event is h11.NEED_DATA:
            if ended:
                break
            ended = True
            connection.receive_data(b"")
        elif isinstance(event, h11.ConnectionClosed):
            break
    if head is None:
        return None
    kept = connection.their_state is h11.DONE and not ended and not connection.trailing_data[0]
    return _read(head, body, complete=complete, keep_alive=kept, switched=False)


_INTERIM = re.compile(rb"HTTP/\d\.\d (?!101)1[^\n]*\n(?:[^\r\n][^\n]*\n)*\r\n")


def without_empty_lines(data: bytes) -> bytes:
    """Leave out what a reader may skip before a start line (RFC 9112, 2.2); h11 does not."""
    left = data.lstrip(b"\r\n")
    interim = _INTERIM.match(left)
    if interim is None:
        return left
    return interim[0] + without_empty_lines(left[interim.end() :])


def _read(
    head: h11.Response | h11.InformationalResponse,
    body: bytes,
    *,
    complete: bool,
    keep_alive: bool,
    switched: bool,
) -> Read:
    nominated = {
        option.strip().lower()
        for name, value in head.headers
        if name == b"connection"
        for option in value.split(b",")
    }
    lines = tuple(
        b"%b: %b\r\n" % (name, value)
        for name, value in head.headers.raw_items()
        if name.lower() not in _LEFT_OUT | nominated
    )
    return Read(head.status_code, bytes(head.reason), lines, body, complete, keep_alive, switched)


# Where the two differ on purpose. In each of these h11 finds an answer and the proxy refuses: some
# other reader could find another one. The patterns are looked for in all but the body.
STRICTER: dict[str, re.Pattern[bytes]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "a bare LF": rb"(?<!\r)\n",
        "a bare CR": rb"\r(?!\n)",
        "a folded field": rb"\n[ \t]",
        "a control character": rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
        "a length beside chunks": rb"\ncontent-length:(.|\n)*\ntransfer-encoding:"
        rb"|\ntransfer-encoding:(.|\n)*\ncontent-length:",
        "two lengths": rb"\ncontent-length:(.|\n)*\ncontent-length:",
        "a list of lengths": rb"\ncontent-length:[^\r]*,",
        "two Locations": rb"\nlocation:(.|\n)*\nlocation:",
        "chunks in HTTP/1.0": rb"http/1\.0 (.|\n)*\ntransfer-encoding:",
        "a version of its own": rb"http/(?!1\.[01] )",
        "a chunk extension that is none": rb"\n[0-9a-f]+;"
        rb"(?![a-z]+(=([a-z]+|\"[a-z ]*\"))?(;[a-z]+)*\r)",
        "a coding among the trailers": rb"\n0+[^\n]*\n(.+\n)*transfer-encoding:",
        "a length among the trailers": rb"\n0+[^\n]*\n(.+\n)*content-length:",
        "an interim answer with chunks": rb"http/1\.. 1(.+\n)+transfer-encoding:",
        "an interim answer of no known status with a length": rb"http/1\.. 1(?!0[0-3])(.+\n)+"
        rb"content-length:",
        "an interim answer that is the last": rb"http/1\.0 1|http/1\.. 1(.+\n)+connection: close",
        "space behind a chunk's size": rb"\r\n[0-9a-f]+[ \t]+\r\n",
    }.items()
}
