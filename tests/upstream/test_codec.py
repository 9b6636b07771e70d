"""Answers read from bytes: the same however they are cut, and never in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.upstream.codec import (
    FIELDS_AT_MOST,
    HEAD_BYTES_AT_MOST,
    INTERIM_AT_MOST,
    ProtocolError,
    ResponseReader,
)
from tests.upstream import readings
from tests.upstream.readings import GET, HEAD, Read, cuts

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CANARY = b"canary-4711"


def read(*pieces: bytes, bodiless: bool = False, eof: bool = False) -> Read:
    """Read an answer whose head is whole."""
    return there(readings.read(*pieces, asked=HEAD if bodiless else GET, eof=eof))


def read_with(reader: ResponseReader, *pieces: bytes) -> Read:
    return there(readings.read_with(reader, pieces))


def there(found: Read | None) -> Read:
    assert found is not None
    return found


def read_lazily(pieces: Iterator[bytes]) -> None:
    reader = ResponseReader()
    reader.expect("GET")
    for piece in pieces:
        reader.feed(piece)


# Answers that are read: bytes, whether to HEAD, whether the stream then ends, and the result.
GOOD = {
    "a length": (
        OK + b"Content-Length: 5\r\nX: y\r\n\r\nhello",
        Read(200, b"OK", (b"X: y\r\n",), b"hello", complete=True, keep_alive=True),
    ),
    "a length of nothing": (
        OK + b"content-length:0\r\n\r\n",
        Read(200, b"OK", (), b"", complete=True, keep_alive=True),
    ),
    "no reason": (
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        Read(200, b"", (), b"", complete=True, keep_alive=True),
    ),
    "a reason of many words": (
        b"HTTP/1.1 404 Not \xe9 Here\t\r\nContent-Length: 0\r\n\r\n",
        Read(404, b"Not \xe9 Here\t", (), b"", complete=True, keep_alive=True),
    ),
    "a status of no class": (
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        Read(999, b"Odd", (), b"", complete=True, keep_alive=True),
    ),
    "an empty field": (
        OK + b"X:\r\nY: \t \r\nContent-Length: 0\r\n\r\n",
        Read(200, b"OK", (b"X: \r\n", b"Y: \r\n"), b"", complete=True, keep_alive=True),
    ),
    "space around a value": (
        OK + b"X: \t a  b \t\r\nContent-Length: 0 \r\n\r\n",
        Read(200, b"OK", (b"X: a  b\r\n",), b"", complete=True, keep_alive=True),
    ),
    "doubled fields in order": (
        OK + b"Set-Cookie: a\r\nx: 1\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n",
        Read(
            200,
            b"OK",
            (b"Set-Cookie: a\r\n", b"x: 1\r\n", b"set-cookie: b\r\n"),
            b"",
            complete=True,
            keep_alive=True,
        ),
    ),
    "chunks": (
        CHUNKED + b"5\r\nhello\r\n01;a=b;c\r\n!\r\n0\r\n\r\n",
        Read(200, b"OK", (), b"hello!", complete=True, keep_alive=True),
    ),
    "chunks with trailers": (
        CHUNKED + b"A\r\n0123456789\r\n0\r\nAuthorization: x\r\nX-T: y\r\n\r\n",
        Read(200, b"OK", (), b"0123456789", complete=True, keep_alive=True),
    ),
    "no chunk but the last": (
        OK + b"transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        Read(200, b"OK", (), b"", complete=True, keep_alive=True),
    ),
    "a close": (
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
        Read(200, b"OK", (), b"hi", complete=True, keep_alive=False),
    ),
    "HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        Read(200, b"OK", (), b"hi", complete=True, keep_alive=False),
    ),
    "HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        Read(200, b"OK", (), b"hi", complete=True, keep_alive=True),
    ),
    "204": (
        b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
        Read(204, b"No Content", (b"X: y\r\n",), b"", complete=True, keep_alive=True),
    ),
    "204 that announces a body": (
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        Read(204, b"No Content", (), b"", complete=True, keep_alive=False),
    ),
    "304 that announces a body": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Read(304, b"Not Modified", (), b"", complete=True, keep_alive=False),
    ),
    "304 that announces chunks": (
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        Read(304, b"Not Modified", (), b"", complete=True, keep_alive=False),
    ),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n"
        b"\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
        Read(200, b"OK", (), b"hi", complete=True, keep_alive=True),
    ),
    "an upgrade that is offered": (
        OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhi",
        Read(200, b"OK", (), b"hi", complete=True, keep_alive=True),
    ),
}
TO_HEAD = {
    "a length": OK + b"Content-Length: 5000\r\nX: y\r\n\r\n",
    "chunks": OK + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n",
}
UNTIL_CLOSE = {
    "neither length nor chunks": OK + b"X: y\r\n\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize(("data", "expected"), GOOD.values(), ids=GOOD.keys())
def test_an_answer_is_read_the_same_wherever_it_is_cut(data: bytes, expected: Read) -> None:
    for pieces in cuts(data):
        assert read(*pieces) == expected


@pytest.mark.parametrize("data", TO_HEAD.values(), ids=TO_HEAD.keys())
def test_an_answer_to_head_has_no_body_whatever_it_announces(data: bytes) -> None:
    for pieces in cuts(data):
        # A faulty upstream might send the body all the same, so the connection is not used again.
        expected = Read(200, b"OK", (b"X: y\r\n",), b"", complete=True, keep_alive=False)
        assert read(*pieces, bodiless=True) == expected


@pytest.mark.parametrize("data", UNTIL_CLOSE.values(), ids=UNTIL_CLOSE.keys())
def test_an_answer_without_a_length_ends_with_the_stream(data: bytes) -> None:
    expected = Read(
        200, b"OK", (b"X: y\r\n",), b"hello\r\n0\r\n\r\n", complete=True, keep_alive=False
    )
    for pieces in cuts(data):
        assert not read(*pieces).complete
        assert read(*pieces, eof=True) == expected


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhel",
    ],
)
def test_a_body_that_breaks_off_never_looks_complete(data: bytes) -> None:
    for pieces in cuts(data):
        assert not read(*pieces, eof=True).complete


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", OK, OK + b"Content-Length: 0\r\n"])
def test_a_head_that_breaks_off_is_no_answer(data: bytes) -> None:
    reader = ResponseReader()
    reader.expect("GET")
    reader.feed(data)
    assert not reader.eof()
    assert reader.head is None
    assert reader.untouched is (not data)


BAD = {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": OK + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "an empty length": OK + b"Content-Length:\r\n\r\nhello",
    "a spaced length": OK + b"Content-Length: 5 0\r\n\r\nhello",
    "an endless length": OK + b"Content-Length: 18446744073709551617\r\n\r\nh",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\nhello",
    "chunked twice": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two locations": OK + b"Location: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
    "a folded field": OK + b"X: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": OK + b"X: y\nContent-Length: 0\r\n\r\n",
    "a bare CR": OK + b"X: y\rContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X: y\x00\r\nContent-Length: 0\r\n\r\n",
    "a control character in a value": OK + b"X: y\x01\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "no name": OK + b": y\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"Nonsense\r\nContent-Length: 0\r\n\r\n",
    "control characters in the reason": b"HTTP/1.1 200 O\x1b[K\r\nContent-Length: 0\r\n\r\n",
    "such in an interim answer's": b"HTTP/1.1 100 \x00\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTML": b"<html>\r\n\r\n",
    "an unasked switch": b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "a bare switch": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a switch behind an interim answer": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 X\r\n\r\n",
    "an interim answer with chunks": b"HTTP/1.1 110 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    "an interim answer with no chunk": b"HTTP/1.1 110 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    "an interim answer with a body": b"HTTP/1.1 110 X\r\nContent-Length: 5\r\n\r\nhello"
    + OK
    + b"Content-Length: 2\r\n\r\nhi",
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a signed chunk": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk of 0x5": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk without size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk with LF alone": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "an oversized chunk": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "space behind a chunk's size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "a length among the trailers": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
    "a coding among the trailers": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a broken trailer": CHUNKED + b"0\r\nX y\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_could_be_read_two_ways_is_refused_wherever_it_is_cut(data: bytes) -> None:
    for pieces in cuts(data):
        with pytest.raises(ProtocolError):
            read(*pieces)


@pytest.mark.parametrize(
    "data", [OK + b"X: canary-4711\x00", b"canary-4711", OK + b"canary-4711 y: z\r\n\r\n"]
)
def test_a_refusal_quotes_nothing(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(data)
    assert CANARY.decode() not in str(caught.value)


# Limits.


def test_fields_by_the_hundred_are_refused() -> None:
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(FIELDS_AT_MOST - 1))
    most = OK + fields + b"Content-Length: 0\r\n"
    assert len(read(most + b"\r\n").lines) == FIELDS_AT_MOST - 1
    with pytest.raises(ProtocolError, match="too many"):
        read(most + b"One: more\r\n\r\n")
    with pytest.raises(ProtocolError, match="too many"):
        read(CHUNKED + b"0\r\n" + fields + b"One: more\r\nTwo: more\r\n\r\n")


@pytest.mark.parametrize("size", [1, 1000, 16_384, 10**7])
def test_a_head_too_large_is_refused_in_however_large_pieces_it_comes(size: int) -> None:
    data = OK + b"X: " + b"y" * HEAD_BYTES_AT_MOST + b"\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ProtocolError, match="too large"):
        read(*(data[at : at + size] for at in range(0, len(data), size)))


def test_a_large_body_in_one_piece_with_its_head_is_no_large_head() -> None:
    body = b"x" * 200_000
    assert read(OK + b"Content-Length: 200000\r\n\r\n" + body).body == body


def test_a_head_without_end_is_refused_early() -> None:
    lines = iter([OK] + [b"X: " + b"y" * 995 + b"\r\n"] * 1000)
    with pytest.raises(ProtocolError):
        read_lazily(lines)
    assert len(list(lines)) > 900


def test_interim_answers_without_end_are_refused() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    final = OK + b"Content-Length: 0\r\n\r\n"
    assert read(interim * INTERIM_AT_MOST + final).complete
    with pytest.raises(ProtocolError, match="without end"):
        read(interim * (INTERIM_AT_MOST + 1) + final)


def test_chunks_that_are_nearly_all_framing_are_refused() -> None:
    chunk = b"1;" + b"e" * 4000 + b"\r\nx\r\n"
    with pytest.raises(ProtocolError, match="framing"):
        read(CHUNKED, *([chunk] * 100))


def test_small_chunks_by_the_thousand_are_read() -> None:
    assert len(read(CHUNKED, *([b"1\r\nx\r\n"] * 50_000), b"0\r\n\r\n").body) == 50_000


# Behind the end.


@pytest.mark.parametrize(
    "junk",
    [
        OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"junk",
        b"\x00",
        CANARY * 20_000,
    ],
    ids=["an answer", "an interim answer", "junk", "NUL", "much junk"],
)
@pytest.mark.parametrize(
    ("data", "bodiless"),
    [
        (OK + b"Content-Length: 2\r\n\r\nhi", False),
        (OK + b"Content-Length: 0\r\n\r\n", False),
        (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False),
        (OK + b"Content-Length: 5\r\n\r\n", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", True),
        (OK + b"Content-Length: 0\r\n\r\n", True),
    ],
)
def test_what_follows_an_answer_costs_the_connection_and_nothing_else(
    data: bytes, junk: bytes, *, bodiless: bool
) -> None:
    clean = read(data, bodiless=bodiless)
    assert clean.complete
    for pieces in ((data + junk,), (data, junk), (data[:-1], data[-1:] + junk)):
        found = read(*pieces, bodiless=bodiless)
        assert found == clean._replace(keep_alive=False)


def test_one_reader_reads_many_answers() -> None:
    reader = ResponseReader()
    for number in range(3):
        for data, expected in GOOD.values():
            if expected.keep_alive:
                reader.expect("GET")
                assert read_with(reader, data[: number + 1], data[number + 1 :]) == expected
        for data in TO_HEAD.values():
            reader.expect("HEAD")
            assert read_with(reader, data).complete


def test_nothing_of_one_answer_is_left_for_the_next() -> None:
    reader = ResponseReader()
    reader.expect("GET")
    reader.feed(OK + b"Content-Length: 11\r\nX: y\r\n\r\n" + CANARY)
    reader.expect("GET")
    assert reader.head is None
    assert reader.untouched
    assert not reader.has_news
    found = read_with(reader, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert found == Read(201, b"Created", (), b"", complete=True, keep_alive=True)


def test_pieces_are_handed_over_once_and_counted_until_then() -> None:
    reader = ResponseReader()
    reader.expect("GET")
    reader.feed(OK + b"Content-Length: 4\r\n\r\nab")
    assert (reader.size, reader.has_news, reader.complete) == (2, True, False)
    assert reader.take() == [b"ab"]
    assert (reader.size, reader.has_news) == (0, False)
    reader.feed(b"cd")
    assert reader.take() == [b"cd"]
    assert (reader.complete, reader.received, reader.has_news) == (True, 4, True)
