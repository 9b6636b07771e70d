"""The reader of an upstream's answers."""

from __future__ import annotations

from typing import Final

import h11

from proxy.upstream.codec import ProtocolError
from tests.upstream.readings import Asked, Read, read, read_by_h11, without_empty_lines

_ASKED: Final = [Asked("GET"), Asked("HEAD"), Asked("POST"), Asked("GET", b"websocket")]
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_BEHIND: Final = _OK + b"Content-Length: 6\r\n\r\nbehind"

# Three bytes say what was asked, and where to cut.
SEEDS: Final = [
    bytes([number % 4, 20, 40]) + data
    for number, data in enumerate(
        [
            _OK + b"Content-Length: 5\r\nX: y\r\n\r\nhello",
            _OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-T: y\r\n\r\n",
            _OK + b"Connection: close\r\n\r\nto the end",
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframes",
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
            b"HTTP/1.0 304 Same\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
            _OK + b"Location: /x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
            _OK + b"Content-Length: 0\r\n\r\n" + _BEHIND,
        ]
    )
]
WORDS: Final = [
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 \r\n\r\n",
        b"HTTP/1.1 110 x\r\n",
        b"HTTP/1.0 ",
        b"101",
    ),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Upgrade: websocket\r\n", b"Location: /\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b";a=b"),
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\x7f", b"\xff", b":", b","),
]


def run(data: bytes) -> None:
    """See the module."""
    if len(data) < len("123"):
        return
    asked, stream = _ASKED[data[0] % len(_ASKED)], data[3:]
    first, second = sorted((data[1], data[2]))
    found = _attempt((stream,), asked)
    for pieces in (
        (stream[:first], stream[first:]),
        (stream[:first], stream[first:second], stream[second:]),
        tuple(stream[at : at + 1] for at in range(len(stream))),
    ):
        _same(found, _attempt(tuple(filter(None, pieces)), asked), stream)
    if isinstance(found, Read) and found.complete:
        _compare_with_h11(found, stream, asked)
        if not found.switched and _attempt((stream,), asked, eof=False) == found:
            _see_what_stands_behind(found, stream, asked)


def _attempt(pieces: tuple[bytes, ...], asked: Asked, *, eof: bool = True) -> Read | str | None:
    try:
        return read(*pieces, asked=asked, eof=eof)
    except ProtocolError:
        return "refused"


def _same(found: Read | str | None, other: Read | str | None, stream: bytes) -> None:
    if isinstance(found, Read) and isinstance(other, Read) and stream.endswith(b"\n"):
        # Empty lines behind an answer cost nothing if they come with it.
        found, other = found._replace(keep_alive=False), other._replace(keep_alive=False)
    assert found == other


def _compare_with_h11(found: Read, stream: bytes, asked: Asked) -> None:
    try:
        other = read_by_h11(without_empty_lines(stream), asked)
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what is read as {found}") from error
    assert other is not None
    assert found._replace(keep_alive=False) == other._replace(keep_alive=False)


def _see_what_stands_behind(found: Read, stream: bytes, asked: Asked) -> None:
    """What came after the end changes nothing of it."""
    behind = _attempt((stream + _BEHIND,), asked)
    assert behind == found._replace(keep_alive=False)
    assert _attempt((stream, _BEHIND), asked) == behind
