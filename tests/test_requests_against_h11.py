"""What the proxy puts on the upstream's wire, read by h11, is what h11 reads on the caller's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.credentials.bearer import Bearer, BearerSettings
from proxy.vendors import eka
from tests.memory import UPSTREAM, Front, arrived_as, compared, passed, read_by_h11
from tests.support import settle
from tests.upstream.readings import cuts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.memory import Asked

HOST = b"Host: localhost\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOKEN = {b"authorization", b"auth"}

METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
SEGMENTS = st.text("abcXYZ019-._~!$&'()*+,=:@", min_size=1, max_size=8).filter(
    lambda text: text.strip(".")
)
ESCAPES = st.sampled_from(["a%20", "%C3%A9", "%41", "%25", "%7e"])
PATHS = st.lists(SEGMENTS | ESCAPES, max_size=3).map(lambda parts: "/" + "/".join(parts))
QUERIES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=10
)
TARGETS = st.tuples(PATHS, QUERIES | st.none()).map(
    lambda both: (both[0] if both[1] is None else "?".join(both)).encode()  # type: ignore[arg-type]  # no None
)
NAMES = st.sampled_from(
    [
        *(b"X-A", b"x-b", b"X_C", b"Accept", b"Cookie", b"Traceparent", b"authority", b"X-Gone"),
        *(
            b"Keep-Alive",
            b"TE",
            b"Trailer",
            b"Proxy-Authorization",
            b"Forwarded",
            b"Content_Length",
        ),
        *(b"X-Forwarded-For", b"x_forwarded_host", b"Authorization", b"Auth", b"x-request-id"),
    ]
)
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12
).map(lambda text: text.encode("latin-1").strip(b" "))
FIELDS = st.lists(
    st.tuples(NAMES, VALUES),
    max_size=4,
    unique_by=lambda field: field[0] if field[0] == b"x-request-id" else field,
)


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw the fields that frame a body, and the framed body."""
    kind, content = (
        draw(st.sampled_from(["none", "length", "chunks"])),
        draw(st.binary(max_size=30)),
    )
    if kind == "none":
        return b"", b""
    if kind == "length":
        return b"Content-Length: %d\r\n" % len(content), content
    data = b""
    while content:
        size = draw(st.integers(1, len(content)))
        extension = draw(st.sampled_from([b"", b"", b";a=b", b';q="v w"']))
        data += b"%x%b\r\n%b\r\n" % (size, extension, content[:size])
        content = content[size:]
    trailers = draw(st.sampled_from([b"", b"X-T: y\r\n", b"Authorization: x\r\n"]))
    return b"Transfer-Encoding: chunked\r\n", data + b"0\r\n" + trailers + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    framing, body = draw(bodies())
    connection = draw(st.sampled_from([b"", b"", b"", b"Connection: X-Gone, keep-alive\r\n"]))
    expect = draw(st.sampled_from([b"", b"", b"", b"Expect: 100-continue\r\n"])) if body else b""
    start = b"%b %b HTTP/1.1\r\n" % (draw(METHODS), draw(TARGETS))
    fields = [block(draw(FIELDS)), HOST, framing, expect, connection, block(draw(FIELDS))]
    if sum(part.lower().count(b"x-request-id") for part in fields) > 1:
        fields.pop()
    return start + b"".join(fields) + b"\r\n" + body


SEVERAL = st.lists(requests(), min_size=1, max_size=2).map(b"".join)


def bearer() -> Bearer:
    settings = {"kind": "bearer", "token": "a.b.c", "origins": [UPSTREAM]}
    return Bearer(BearerSettings.model_validate(settings))


def ids(asked: Iterable[Asked]) -> list[bytes]:
    return [
        value for each in asked for name, value in each.fields if name.lower() == b"x-request-id"
    ]


def is_chunked(asked: Asked) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in asked.fields)


@settings(deadline=None, max_examples=60)
@given(SEVERAL)
async def test_a_request_arrives_as_it_was_made_wherever_it_is_cut(data: bytes) -> None:
    front = Front()
    read = read_by_h11(data)
    expected = [passed(each) for each in read]
    # A chunked request may be the last one that is heard: see `CallerConnection._may_hold_trailer`.
    chunked = [number for number, each in enumerate(read, 1) if is_chunked(each)]
    at_least = min([*chunked, len(read)])
    for pieces in cuts(data):
        arrived, answers = await front.say(pieces)
        assert at_least <= len(arrived) <= len(read)
        assert [compared(each) for each in arrived] == expected[: len(arrived)]
        assert all(each.whole for each in arrived)
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == len(arrived)
        # One id each: the caller's own if it is fit to be one.
        given_ids = [
            each
            for each in ids(read[: len(arrived)])
            if re.fullmatch(rb"[\w.~:/+=@-]{1,128}", each, re.ASCII)
        ]
        made = ids(arrived)
        assert len(made) == len(arrived)
        assert [each for each in made if each in given_ids] == given_ids
    front.close()
    await settle(4)


@settings(deadline=None, max_examples=20)
@given(requests())
async def test_with_a_credential_its_own_fields_stand_in_place_of_the_callers(data: bytes) -> None:
    owned = frozenset(name.lower().replace("_", "-") for name in eka.TOKEN_FIELDS)
    front = Front(bearer())
    (expected,) = [passed(each, owned) for each in read_by_h11(data)]
    for pieces in cuts(data)[:: len(data) // 10]:
        (arrived,), _ = await front.say(pieces)
        assert compared(arrived, *TOKEN) == expected
        own = [field for field in arrived.fields if field[0].lower() in TOKEN]
        assert own == [(b"Authorization", b"Bearer a.b.c"), (b"auth", b"a.b.c")]
    front.close()
    await settle(4)


EDITS = st.sampled_from(
    [
        *(b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b"\x01", b"\x7f", b"\xff", b":", b";"),
        *(b"0", b"5", b"-", b",", b"#", b"\r\n ", b"\r\n\r\n", b"Content-Length: 5\r\n", HIDDEN),
        *(b"Transfer-Encoding: chunked\r\n", b"Host: evil.example\r\n", b"Connection: close\r\n"),
    ]
)


# Always the same examples: to find new ones is what `scripts/fuzz` is for.
@settings(deadline=None, max_examples=500, derandomize=True)
@given(SEVERAL, EDITS, st.integers(0, 600), st.integers(0, 2), st.integers(0, 600))
async def test_nothing_arrives_of_a_broken_request_but_what_h11_reads_there(
    data: bytes, put: bytes, at: int, drop: int, cut: int
) -> None:
    at %= len(data) + 1
    data = data[:at] + put + data[at + drop :] + HIDDEN
    front = Front()
    arrived, answers = await front.say([data[:cut], data[cut:]] if 0 < cut < len(data) else [data])
    assert b"internal_error" not in answers
    read = iter(passed(each) for each in read_by_h11(data))
    for each in arrived:
        assert any(arrived_as(each, other) for other in read)  # in their order
    front.close()
    await settle(4)
