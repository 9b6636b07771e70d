"""The reader of answers against h11's: the same answer, wherever its bytes are cut."""

from __future__ import annotations

from typing import NamedTuple

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.upstream.codec import ProtocolError
from tests.upstream.readings import (
    GET,
    STRICTER,
    Asked,
    cuts,
    read,
    read_by_h11,
    without_empty_lines,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BODILESS = (204, 304)

NAMES = st.text("abcXYZ-_019", min_size=1, max_size=10).map(lambda name: b"x-" + name.encode())
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(lambda text: text.encode("latin-1").strip(b" "))
REASONS = st.text("abc XYZ'\t\xe9", max_size=12).map(lambda text: text.strip().encode("latin-1"))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
STATUSES = st.sampled_from([200, 201, 204, 206, 301, 304, 401, 404, 491, 500, 503, 599])
INTERIM = st.lists(st.sampled_from([100, 102, 103, 110]), max_size=2)
ASKED = st.sampled_from([GET, GET, Asked("POST"), Asked("HEAD"), Asked("GET", b"websocket")])


class Answer(NamedTuple):
    """An answer as it stands on the wire, and what it is to.

    `lasts` tells whether the connection may be used again behind it; `doubtful` that it has no
    body (RFC 9112, 6.3), but fields that mean one for a reader who forgot that.
    """

    asked: Asked
    data: bytes
    lasts: bool
    doubtful: bool = False


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


@st.composite
def framed(draw: st.DrawFn, content: bytes, kinds: list[str]) -> tuple[str, bytes, bytes]:
    """Draw how a body is framed: the kind, the field for it, and the framed body."""
    kind = draw(st.sampled_from(kinds))
    if kind == "length":
        return kind, b"Content-Length: %d\r\n" % len(content), content
    if kind == "close":
        return kind, b"", content
    data, left = b"", content
    while left:
        size = draw(st.integers(1, len(left)))
        spelled = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])) % size
        extension = draw(st.sampled_from([b"", b"", b";a=b", b";x", b';q="v w"', b";a;b=c"]))
        data += b"%b%b\r\n%b\r\n" % (spelled, extension, left[:size])
        left = left[size:]
    data += b"0" + draw(st.sampled_from([b"", b"00", b";last"])) + b"\r\n"
    data += block(draw(FIELDS)) + b"\r\n"
    name = draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"]))
    return kind, name + b"\r\n", data


@st.composite
def by_hand(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> Answer:
    """Write an answer in ways that no library would."""
    asked, status, is_old = draw(ASKED), draw(STATUSES), draw(st.integers(0, 4)) == 0
    kinds = ["length", "close"] if is_old else ["length", "chunks", "close"]
    content = draw(contents)
    kind, framing, body = draw(framed(content, kinds))
    bodiless = asked.method == "HEAD" or status in BODILESS
    option = draw(st.sampled_from([b"", b"", b"close", b"keep-alive", b"Keep-Alive, X-Gone"]))
    connection = b"Connection: %b\r\n" % option if option else b""
    head = b"HTTP/1.%d %d %b\r\n" % (not is_old, status, draw(REASONS))
    head += block(draw(FIELDS)) + framing + connection + block(draw(FIELDS)) + b"\r\n"
    interim = b"".join(
        b"HTTP/1.1 %d %b\r\n%b\r\n" % (each, draw(REASONS), block(draw(FIELDS)))
        for each in draw(INTERIM)
    )
    lasts = option != b"close" and (bodiless or kind != "close")
    if is_old:
        lasts = lasts and option.lower().startswith(b"keep-alive")
    doubtful = bodiless and (kind == "chunks" or (kind == "length" and content != b""))
    doubtful |= asked.method == "HEAD" and status not in BODILESS and kind == "close"
    return Answer(asked, interim + head + (b"" if bodiless else body), lasts, doubtful)


@st.composite
def by_h11(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> Answer:
    """Let h11 write an answer."""
    asked, status = draw(ASKED), draw(STATUSES)
    server = h11.Connection(h11.SERVER)
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    server.receive_data(b"%b / HTTP/%b\r\nHost: x\r\n\r\n" % (asked.method.encode(), version))
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    data, content = b"", draw(contents)
    for each in draw(INTERIM) if version == b"1.1" else []:
        data += (
            server.send(h11.InformationalResponse(status_code=each, headers=draw(FIELDS))) or b""
        )
    headers = draw(FIELDS)
    bodiless = asked.method == "HEAD" or status in BODILESS
    announced = bodiless or draw(st.booleans())
    if announced:
        headers.append((b"Content-Length", b"%d" % len(content)))
    if draw(st.integers(0, 3)) == 0:
        headers.append((b"Connection", b"close"))
    head = h11.Response(status_code=status, headers=headers, reason=draw(REASONS))
    data += server.send(head) or b""
    if not bodiless:
        data += server.send(h11.Data(data=content)) or b""
    trailers = [] if announced or version == b"1.0" else draw(FIELDS)
    data += server.send(h11.EndOfMessage(headers=trailers)) or b""
    lasts = server.our_state is h11.DONE
    return Answer(asked, data, lasts, doubtful=bodiless and bool(content))


ANSWERS = by_hand(st.binary(max_size=40)) | by_h11(st.binary(max_size=40))
# Without what could be framing, so that a pattern is found only where it counts.
PLAIN_ANSWERS = by_hand(st.text("abc019:;", max_size=30).map(str.encode))


@settings(deadline=None, max_examples=300)
@given(ANSWERS)
@example(Answer(GET, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", lasts=True))
def test_an_answer_is_read_as_h11_reads_it_wherever_it_is_cut(answer: Answer) -> None:
    other = read_by_h11(answer.data, answer.asked)
    assert other is not None
    # Stricter than h11: a faulty upstream might be such a reader, and send that body. More
    # lenient: HTTP/1.0 may keep a connection, by its keep-alive.
    expected = other._replace(keep_alive=answer.lasts and not answer.doubtful)
    if b"HTTP/1.0 " not in answer.data and not answer.doubtful:
        assert other.keep_alive == expected.keep_alive
    assert expected.complete
    for pieces in cuts(answer.data):
        assert read(*pieces, asked=answer.asked, eof=True) == expected


@settings(deadline=None, max_examples=100)
@given(ANSWERS, ANSWERS)
def test_what_stands_behind_an_answer_is_never_taken_for_a_part_of_it(
    answer: Answer, behind: Answer
) -> None:
    alone = read(answer.data, asked=answer.asked)
    if alone is None or not alone.complete:
        return  # it ends with the stream
    for pieces in cuts(answer.data + behind.data):
        found = read(*pieces, asked=answer.asked, eof=True)
        assert found == alone._replace(keep_alive=False)


@settings(deadline=None, max_examples=100)
@given(
    FIELDS,
    INTERIM,
    st.sampled_from([b"websocket", b"WebSocket", b"test/1"]),
    st.binary(max_size=30),
)
def test_a_switch_that_was_asked_for_is_read_as_h11_reads_it(
    fields: list[tuple[bytes, bytes]], interim: list[int], protocol: bytes, behind: bytes
) -> None:
    asked = Asked("GET", protocol.lower())
    data = b"".join(b"HTTP/1.1 %d x\r\n\r\n" % each for each in interim)
    data += b"HTTP/1.1 101 Switching\r\nUpgrade: %b\r\nConnection: upgrade\r\n" % protocol
    data += block(fields) + b"\r\n" + behind
    expected = read_by_h11(data, asked)
    assert expected is not None
    assert (expected.switched, expected.body) == (True, behind)
    for pieces in cuts(data):
        assert read(*pieces, asked=asked, eof=True) == expected
        with pytest.raises(ProtocolError):
            read(*pieces)  # unasked: as h11
    with pytest.raises(h11.RemoteProtocolError):
        read_by_h11(data)


EDITS = st.sampled_from(
    [
        *(b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b"\x01", b"\x7f", b":", b";", b","),
        *(b"0", b"5", b"-", b"\r\n ", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Connection: close\r\n", b"Location: /\r\n", b"HTTP/1.1 100 x\r\n\r\n"),
    ]
)


# Always the same examples: to find new ones is what `scripts/fuzz` is for.
@settings(deadline=None, max_examples=500, derandomize=True)
@given(PLAIN_ANSWERS, EDITS, st.integers(0, 400), st.integers(0, 2))
def test_a_broken_answer_is_read_as_h11_reads_it_or_refused_for_a_reason_that_is_listed(
    answer: Answer, put: bytes, at: int, drop: int
) -> None:
    at %= len(answer.data) + 1
    data = answer.data[:at] + put + answer.data[at + drop :]
    try:
        found = read(data, asked=answer.asked, eof=True)
    except ProtocolError:
        found = None
    try:
        other = read_by_h11(without_empty_lines(data), answer.asked)
    except h11.RemoteProtocolError:
        other = None
    if found is not None and found.complete:
        assert other is not None
        assert found._replace(keep_alive=False) == other._replace(keep_alive=False)
        # Empty lines behind an answer, that came with it, cost nothing.
        kept = other.keep_alive or b"HTTP/1.0" in data or data.endswith((b"\r\n\r\n", b"\n\n"))
        assert kept or not found.keep_alive
    elif other is not None and other.complete:
        assert [name for name, pattern in STRICTER.items() if pattern.search(data)]


# Each thing in which the proxy is stricter, or more lenient, by itself.

REFUSED = {
    "a bare LF": OK + b"X: y\nContent-Length: 0\r\n\r\n",
    "a folded field": OK + b"X: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "a control character": OK + b"X: y\x01\r\nContent-Length: 0\r\n\r\n",
    "a length beside chunks": OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "two Locations": OK + b"Location: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare CR": CHUNKED + b"5;x\ry\r\nhello\r\n0\r\n\r\n",
    "a version of its own": b"HTTP/1.5 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a chunk extension that is none": CHUNKED + b"5;,\r\nhello\r\n0\r\n\r\n",
    "a coding among the trailers": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a length among the trailers": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
    "an interim answer with chunks": b"HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKED
    + b"0\r\n\r\n",
    "an interim answer of no known status with a length": b"HTTP/1.1 110 x\r\n"
    b"Content-Length: 5\r\n\r\n" + CHUNKED + b"0\r\n\r\n",
    "an interim answer that is the last": b"HTTP/1.1 100 x\r\nConnection: close\r\n\r\n"
    + CHUNKED
    + b"0\r\n\r\n",
    "space behind a chunk's size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", STRICTER)
def test_what_h11_reads_and_others_might_read_otherwise_is_refused(name: str) -> None:
    data = REFUSED[name]
    assert STRICTER[name].search(data)
    other = read_by_h11(data)
    assert other is not None
    assert other.complete
    for pieces in cuts(data):
        with pytest.raises(ProtocolError):
            read(*pieces)


def test_a_switch_to_what_was_not_asked_for_is_refused_and_h11_follows_it() -> None:
    asked = Asked("GET", b"websocket")
    data = b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    assert read_by_h11(data, asked) is not None
    for pieces in cuts(data):
        with pytest.raises(ProtocolError):
            read(*pieces, asked=asked)


@pytest.mark.parametrize("data", [b"\r\n" + OK + b"Content-Length: 0\r\n\r\n"])
def test_what_is_read_and_h11_refuses_is_allowed_by_its_rfc(data: bytes) -> None:
    found = read(data)
    assert found is not None
    assert found.complete
    with pytest.raises(h11.RemoteProtocolError):
        read_by_h11(data)
