"""How large a request's head is, and what stands behind a request. Pure: no I/O, no clock.

aiohttp's parser tells what it has read, not where that stood. The start of a next head, which may
come in the packet of an earlier request's end, is therefore found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

END: Final = b"\r\n\r\n"  # of a head
_OF_A_LINE: Final = len("  HTTP/1.1\r\n")
_OF_A_FIELD: Final = len(": \r\n")


class Request(Protocol):
    """A request as aiohttp's parser gives it; `path` is its target."""

    @property
    def method(self) -> str:
        """As it stands in the request line."""
        ...

    @property
    def path(self) -> str:
        """As it stands there; bytes that are not UTF-8 are surrogates."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields, by name in any case."""
        ...

    @property
    def raw_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The fields as they came, without the space around values."""
        ...


def head_size(request: Request) -> int:
    """Count the bytes of a head, if it is spelled in the usual way: one space behind a colon."""
    target = request.path.encode("utf-8", "surrogateescape")
    fields = sum(len(name) + len(value) + _OF_A_FIELD for name, value in request.raw_headers)
    return len(request.method) + len(target) + _OF_A_LINE + fields + len("\r\n")


def behind(requests: Iterable[Request], data: bytes, at: int) -> int:
    """Count the bytes of `data` behind these requests, of which the first begins at `at` or later.

    Below 0, so many bytes of the last one's body are still to come. Never too small: each head is
    taken to begin where one could. A chunked body counts as empty.
    """
    for request in requests:
        end = data.find(END, at) + len(END) + int(request.headers.get("Content-Length", 0))
        at = past_blank_lines(data, end)
    return len(data) - at


def past_blank_lines(data: bytes, at: int) -> int:
    """Skip what may stand before a request line, and is no part of it (RFC 9112, 2.2)."""
    while data[at : at + 1] in (b"\r", b"\n"):
        at += 1
    return at
