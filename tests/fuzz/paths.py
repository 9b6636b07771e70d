"""The request target: its one reading, and what routes and `allow` make of it."""

from __future__ import annotations

import posixpath
import re
from typing import Final
from urllib.parse import unquote

from proxy import target
from proxy.errors import ProxyError
from proxy.routing import Operations, Prefixes

SEEDS: Final = [
    *(b"/", b"/open/a", b"/open/inner/b?c=%2F..&d=//", b"/open/%C3%A9%20x", b"/.well-known/x"),
    *(b"/open/ifsc:KKBK0000261/1", b"/open/100%25", b"*", b"http://evil.example/x", b"/open/.."),
]
WORDS: Final = [
    *(
        b"/open",
        b"/inner",
        b"/..",
        b"/.",
        b"//",
        b"%2e",
        b"%2F",
        b"%5c",
        b"\\",
        b";",
        b"%3b",
        b"%25",
    ),
    *(b"%252e", b"%", b"%00", b"%0a", b"%20", b"?", b"#", b"@", b"%C3%A9", b"%c0%ae", b"\xc3\xa9"),
]

_ROUTES: Final = Prefixes([("/", "all"), ("/open", "open"), ("/open/inner", "inner")])
_OPEN: Final = Operations.parse("GET /open/**")


def run(data: bytes) -> None:
    """See the module."""
    raw = data.decode("utf-8", "surrogateescape")  # as aiohttp has it
    try:
        read = target.parse(raw)
    except ProxyError as error:
        assert error.code == "bad_request"  # noqa: PT017 - any target may be refused
        return
    assert read.raw == raw
    assert raw in {read.raw_path, f"{read.raw_path}?{read.query}"}
    assert not re.search(r"[\x00-\x20\x7f#]", raw)
    route, is_open = _ROUTES.find(read.path), _OPEN.allows("GET", read.path)
    assert is_open == (read.path.startswith("/open/") or read.path == "/open")
    for path in _readings(read.raw_path):
        assert not set(path) & {"\\", "\x00"}
        assert _ROUTES.find(path) == route
        assert _OPEN.allows("GET", path) == is_open


def _readings(raw_path: str) -> list[str]:
    """Say how a server might understand a path."""
    once = unquote(raw_path)
    twice = unquote(once)
    bare = [re.sub(";[^/]*", "", path) for path in (once, twice)]
    readings = [once, twice, *bare, *(path.replace("\\", "/") for path in bare)]
    return readings + [posixpath.normpath(re.sub("/+", "/", path)) for path in readings]
