r"""The request target: one canonical reading, or a refusal. Pure: no I/O, no clock.

Facts this rests on:
- Only origin-form is served (RFC 9112, 3.2.1). Absolute-form names an authority of its own,
  which could differ from Host; `CONNECT` and `OPTIONS *` have no meaning for a route.
- What is judged (`Target.path`) is what an upstream will understand: percent-decoded. What is
  sent (`Target.raw`) is what the caller spelled, byte for byte; decoding is for judging only.
- Servers disagree on dot segments, empty segments, `\`, `;parameters`, encoded slashes, an encoded
  `?` or `#`, double encoding, overlong or broken UTF-8, and characters that compatibility (NFKC) or
  a code page turns into one of these. A path that has any of these can be read two ways, and is
  refused. A query is opaque: only what would break the request line is refused.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from proxy.errors import bad_request

# A path of unreserved characters, sub-delims (without ";"), ":" and "@" has nothing to decode.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9\-._~!$&'()*+,=:@]+)+/?|/")
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[^\x00-\x20\x7f#]*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_SPECIAL = re.compile(r"[\\;?#\x00-\x1f\x7f-\x9f]")
# What a Windows code page takes for a slash or backslash, beyond what NFKC does.
_SLASH_LIKE = re.compile("[\u2044\u2215\u2216\u29f5\u29f8\u29f9]")


class Target:
    """A request target: `raw` as spelled, its path as understood, its query as spelled."""

    __slots__ = ("path", "query", "raw", "raw_path")

    def __init__(self, raw: str, raw_path: str, path: str, query: str) -> None:
        self.raw = raw
        self.raw_path = raw_path
        self.path = path
        self.query = query


def parse(raw: str) -> Target:
    """Read a request target (RFC 9112, 3.2); ProxyError `bad_request` where it is ambiguous."""
    raw_path, _, query = raw.partition("?")
    if query and not _QUERY.fullmatch(query):
        raise bad_request("The query holds a control character, a space or a '#'.")
    if _PLAIN.fullmatch(raw_path) and "/." not in raw_path:
        return Target(raw, raw_path, raw_path, query)
    return Target(raw, raw_path, _understood(raw_path), query)


def _understood(raw_path: str) -> str:
    if not raw_path.startswith("/"):
        raise bad_request("The request target is not in origin-form: it has to begin with '/'.")
    if not _PATH.fullmatch(raw_path):
        raise bad_request(
            "The path holds a character that has to be percent-encoded, a ';', "
            "or a '%' that is not followed by two hexadecimal digits."
        )
    if "%2f" in raw_path.lower():
        raise bad_request("The path holds an encoded '/': it could be read two ways.")
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise bad_request("The path's percent-encoding is not UTF-8.") from None
    if _SPECIAL.search(path) or _ESCAPE.search(path):
        raise bad_request(
            "The path holds an encoded '\\', ';', '?', '#', control character or '%XX'."
        )
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise bad_request("The path holds an empty segment: it could be read two ways.")
    if any(segment and not segment.strip(". ") for segment in segments):
        raise bad_request("The path holds a '.' or '..' segment: it could be read two ways.")
    if not path.isascii() and _is_disguise(path):
        raise bad_request(
            "The path holds a character that could be read as a '/', '.' or the like."
        )
    return path


def _is_disguise(path: str) -> bool:
    """Tell whether a server that reduces characters to simpler ones might see another path."""
    if _SLASH_LIKE.search(path):
        return True
    for segment in path.split("/"):
        simple = unicodedata.normalize("NFKC", segment)
        if simple == segment:
            continue
        if "/" in simple or _SPECIAL.search(simple) or _ESCAPE.search(simple):
            return True
        if not simple.strip(". "):
            return True
    return False
