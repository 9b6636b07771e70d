"""Ways to spell a path, which callers may try, and ways to read one, which servers may have."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Instead of one character. Raw characters beyond ASCII stand for their UTF-8 bytes.
_SLASHES: Final = [
    *(
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "//",
        "/./",
        "/x/../",
        "/%2e/",
        "/;a=b/",
        "%252f",
        "%c0%af",
    ),
    *("%e0%80%af", "%EF%BC%8F", "%E2%88%95", "%E2%81%84", "/%20/", "/%00/", "%255c"),
]
_DOTS: Final = ["%2e", "%2E", "%252e", "%c0%ae", "%EF%BC%8E", "%e0%40%ae", "%u002e"]
_ENDS: Final = [
    *("", "/", "//", "/.", "/..", ".", "%2e", "%20", "/%20", ";", ";a=b", "%3b", "%3Ba=b", ".json"),
    *(
        "?",
        "?a=b",
        "?/open/x",
        "#",
        "#x",
        "%23",
        "%3f",
        "%3Fx=y",
        "%00",
        "%00.json",
        "%0d%0a",
        "%2500",
    ),
]
_STARTS: Final = [
    "",
    "/",
    "http://localhost",
    "HTTP://evil.example",
    "//evil.example",
    "/.",
    "\\",
    "*",
]


def _spellings(char: str) -> list[str]:
    if char == "/":
        return _SLASHES
    hexed = [f"%{ord(char):02x}", f"%{ord(char):02X}", f"%25{ord(char):02x}"]
    if char == ".":
        return _DOTS
    return [*hexed, char.swapcase(), _fullwidth(char)]


def _fullwidth(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in chr(ord(char) + 0xFEE0).encode())


@st.composite
def spelled(draw: st.DrawFn, paths: st.SearchStrategy[str]) -> str:
    """A path with a few of its characters spelled in other ways."""
    chars = list(draw(paths))
    for at in draw(st.lists(st.integers(0, len(chars) - 1), max_size=3)):
        if len(chars[at]) == 1:
            chars[at] = draw(st.sampled_from([chars[at], *_spellings(chars[at])]))
    plain = st.just("")
    start = draw(st.one_of(plain, plain, st.sampled_from(_STARTS)))
    return start + "".join(chars) + draw(st.one_of(plain, st.sampled_from(_ENDS)))


# What servers do to a path, each by itself harmless.


def _decoded(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


def _overlong(path: str) -> str:
    """Read UTF-8 as decoders did that did not mind the shortest form."""
    path = re.sub("\xc0([\x80-\xbf])", lambda m: chr(ord(m[1]) & 0x3F), path)
    return re.sub("\xe0\x80([\x80-\xbf])", lambda m: chr(ord(m[1]) & 0x3F), path)


def _compatible(path: str) -> str:
    try:
        text = path.encode("latin-1").decode()
    except UnicodeDecodeError:
        return path
    text = unicodedata.normalize("NFKC", text).translate({0x2215: "/", 0x2044: "/", 0x2216: "\\"})
    return text.encode().decode("latin-1")


def _normal(path: str) -> str:
    return posixpath.normpath(re.sub("/+", "/", path)) + ("/" if path.endswith("/") else "")


READERS: Final[dict[str, Callable[[str], str]]] = {
    "decode": _decoded,
    "overlong": _overlong,
    "compatible": _compatible,
    "backslash": lambda path: path.replace("\\", "/"),
    "parameters": lambda path: re.sub(";[^/]*", "", path),
    "cut": lambda path: re.split(r"[?#\x00]", path, maxsplit=1)[0],
    "normal": _normal,
}
# What makes a server take two paths for one, which both stay inside of what a pattern names.
TOLERANT: Final[dict[str, Callable[[str], str]]] = {
    "case": lambda path: path.lower(),
    "slash": lambda path: path.rstrip("/") or "/",
    "ends": lambda path: re.sub(r"[. ]+(?=/|$)", "", path),
}
EXTENSION: Final[dict[str, Callable[[str], str]]] = {
    "extension": lambda path: re.sub(r"(?<=[^/])\.[^/]*$", "", path)
}


def readings(raw_path: str, *readers: dict[str, Callable[[str], str]], depth: int = 4) -> set[str]:
    """Everything that servers behind one another might understand, in any order.

    All servers decode once, some of them all but a slash.
    """
    found = {_decoded(raw_path), _decoded(re.sub("%2f", "%252F", raw_path, flags=re.IGNORECASE))}
    newest: Iterable[str] = found
    for _ in range(depth):
        newest = {read(path) for path in newest for some in readers for read in some.values()}
        newest -= found
        found |= newest
    return found
