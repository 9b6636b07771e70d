"""The sorters of header fields: what passes, and what must not in any fold."""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import ProxyError
from proxy.headers import RequestSorter, ResponseSorter
from proxy.vendors import eka, eko

_OWNED: Final = eka.TOKEN_FIELDS | eko.SIGNATURE_FIELDS
_CONSUMED: Final = {"X-Eka-Workspace", "X-Eko-Aadhaar"}

SEEDS: Final = [
    b"Host: x\nContent-Length: 5\nX-A: b\nAuthorization: y",
    b"Connection: close, X-Gone, Authorization\nX-Gone: 1\nX-Kept: 2",
    b"developer_key: a\nDeveloper-Key: b\nsecret.key: c\nX-Forwarded-For: d\nForwarded: e",
    b"Transfer-Encoding: chunked\nTE: trailers\nTrailer: X\nUpgrade: websocket\nKeep-Alive: 5",
    b"X-Eka-Workspace: a\nx_request_id: b\nX-Request-Id: c\nExpect: 100-continue\nOrigin: null",
]
WORDS: Final = [
    *(b"Connection: ", b"Authorization", b"auth", b"client-id", b"jwt-payload", b"developer_key"),
    *(b"secret-key-timestamp", b"request_hash", b"Content_Length", b"Transfer.Encoding", b"proxy-"),
    *(b"X-Forwarded-", b"http2~settings", b"X_Eko_Aadhaar", b": ", b"\n", b",", b"_", b"-", b"."),
]

# The rule, said a second time.
_HOP_BY_HOP: Final = re.compile(
    "connection|http2-settings|keep-alive|proxy-(authenticate|authorization|connection)|te|trailer"
    "|transfer-encoding|upgrade"
)
_NEVER: Final = re.compile(
    f"{_HOP_BY_HOP.pattern}|host|expect|x-request-id|forwarded|x-forwarded-.*"
    "|" + "|".join(re.sub("[^a-z0-9]", "-", name.lower()) for name in _OWNED | _CONSUMED)
)


def run(data: bytes) -> None:
    """See the module."""
    pairs = [line.partition(b": ") for line in data.split(b"\n")]
    raw = [(name, value) for name, _, value in pairs if name and b":" not in name]
    sorter = RequestSorter(_OWNED, _CONSUMED)
    lines = _sorted_twice(sorter, raw)
    for name, _ in lines or ():
        folded = _fold(name)
        # The proxy itself gives an X-Request-Id, so other spellings of it may pass.
        assert not _NEVER.fullmatch(folded) or folded == "x-request-id"
        assert name.lower() not in {b"x-request-id", *_nominated(raw)}
        assert folded != "content-length" or name.lower() == b"content-length"
    for name, _ in _sorted_twice(ResponseSorter(), raw) or ():
        assert not _HOP_BY_HOP.fullmatch(name.decode("latin-1").lower())
        assert name.lower() not in _nominated(raw)


def _sorted_twice(
    sorter: RequestSorter | ResponseSorter, raw: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]] | None:
    """Sort by names that are new, and by the same ones known; None if the head is refused."""
    found: list[list[bytes] | None] = []
    for _ in range(2):
        try:
            fields = sorter.sort(raw)
        except ProxyError as error:
            assert error.code == "bad_request"  # noqa: PT017 - any head may be refused
            found.append(None)
        else:
            found.append(fields.lines)
    passed, again = found
    assert passed == again
    if passed is None:
        return None
    # What passes is some of what came, in its order: else there is no next.
    left = iter(raw)
    return [next(pair for pair in left if b"%b: %b\r\n" % pair == line) for line in passed]


def _nominated(raw: list[tuple[bytes, bytes]]) -> set[bytes]:
    values = [value for name, value in raw if name.lower() == b"connection"]
    return {option.strip().lower() for value in values for option in value.split(b",")} - {
        b"content-length"
    }


def _fold(name: bytes) -> str:
    return re.sub("[^a-z0-9]", "-", name.decode("latin-1").lower())
