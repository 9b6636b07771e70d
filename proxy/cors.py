"""What a browser needs to let a page of a listed web origin call the proxy (Fetch, 3.2). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_REQUEST_METHOD = b"access-control-request-method"
_REQUEST_HEADERS = b"access-control-request-headers"


def answer_lines(origin: bytes) -> list[bytes]:
    """Return the fields that let the page at `origin`, which is a listed one, read an answer."""
    return [
        b"Access-Control-Allow-Origin: %b\r\n" % origin,
        b"Access-Control-Expose-Headers: X-Request-Id, X-Ekeko-Error, Retry-After\r\n",
        b"Vary: Origin\r\n",
    ]


def preflight_lines(method: str, raw_headers: Iterable[tuple[bytes, bytes]]) -> list[bytes] | None:
    """Return the fields that answer a preflight, None if the request is not one."""
    if method != "OPTIONS":
        return None
    asked = {name.lower(): value for name, value in raw_headers}
    if _REQUEST_METHOD not in asked:
        return None
    lines = [
        b"Access-Control-Allow-Methods: %b\r\n" % asked[_REQUEST_METHOD],
        b"Access-Control-Max-Age: 600\r\n",
    ]
    if _REQUEST_HEADERS in asked:
        lines.append(b"Access-Control-Allow-Headers: %b\r\n" % asked[_REQUEST_HEADERS])
    return lines
