"""What arrived at a stand-in: the request as spelled, its body hashed and counted in passing."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from aiohttp import ClientError, web

from proxy.sandbox.multipart import Part, PartScanner

if TYPE_CHECKING:
    from collections.abc import Mapping

RawHeaders = tuple[tuple[bytes, bytes], ...]

KEPT_BODY: Final = 1024 * 1024  # bytes: a longer body is hashed and counted, not kept
_BOUNDARY: Final = re.compile(r'^multipart/[^;]+;.*\bboundary="?([^";]+)"?', re.IGNORECASE)
_FOLD: Final = str.maketrans("_.", "--")


@dataclass(frozen=True, slots=True)
class Body:
    """A received body; `kept` is None when it was longer than KEPT_BODY.

    `complete` is False when the sender broke off, or when the body was left unread.
    """

    sha256: str
    length: int
    kept: bytes | None
    parts: tuple[Part, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Arrived:
    """A journal entry: one request as it reached the stand-in, header spelling included."""

    method: str
    target: str
    headers: RawHeaders
    body_sha256: str
    body_length: int
    body_complete: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its body; `target` is the raw request target, never normalised."""

    method: str
    target: str
    headers: RawHeaders
    body: Body

    @property
    def path(self) -> str:
        """The target up to the query, as spelled."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The decoded query; the last of equal names wins."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def media_type(self) -> str:
        """Content-Type without its parameters, lower-case; empty when there is none."""
        return (self.values("content-type") or [""])[0].partition(";")[0].strip().lower()

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order; `name` in lower case."""
        return [text(value) for key, value in self.headers if text(key).lower() == name]

    def arrived(self) -> Arrived:
        """Return the journal entry of this call: everything but the content of its body."""
        body = self.body
        return Arrived(
            self.method, self.target, self.headers, body.sha256, body.length, body.complete
        )


class RefusedError(Exception):
    """The stand-in says no, with this HTTP status; the reason never quotes a secret."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def text(raw: bytes) -> str:
    """Decode header bytes; latin-1 accepts and gives back any byte."""
    return raw.decode("latin-1")


def folded(raw: bytes) -> str:
    """Spell a header name the way that frameworks do which take `_`, `.` and `-` for the same."""
    return text(raw).lower().translate(_FOLD)


def first_stray(headers: RawHeaders, owned: "Mapping[str, str]") -> str | None:
    """Describe the first header that doubles or imitates one of `owned`, if any does.

    `owned` maps folded names to the one true spelling in lower case.
    """
    seen: Counter[str] = Counter()
    for raw, _ in headers:
        exact = owned.get(folded(raw))
        if exact is None:
            continue
        if text(raw).lower() != exact:
            return f"{text(raw)} is another spelling of {exact}"
        seen[exact] += 1
        if seen[exact] > 1:
            return f"{exact} arrived more than once"
    return None


def unread(request: web.BaseRequest) -> Call:
    """Describe a request whose body was left on the wire."""
    body = Body(hashlib.sha256().hexdigest(), 0, None, complete=not request.body_exists)
    return Call(request.method, request.raw_path, request.raw_headers, body)


async def receive(request: web.BaseRequest) -> Call:
    """Read the request to its end in constant memory."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        # aiohttp leaves this to its Application, which the stand-ins do without.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = await _read_body(request)
    return Call(request.method, request.raw_path, request.raw_headers, body)


async def _read_body(request: web.BaseRequest) -> Body:
    digest, length, kept = hashlib.sha256(), 0, bytearray()
    found = _BOUNDARY.match(request.headers.get("Content-Type", ""))
    scanner = PartScanner(found[1]) if found else None
    complete = True
    try:
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            length += len(chunk)
            kept += chunk[: KEPT_BODY - len(kept)]
            if scanner is not None:
                scanner.feed(chunk)
    except (web.RequestPayloadError, ClientError, OSError):
        complete = False
    whole = bytes(kept) if length <= KEPT_BODY else None
    parts = tuple(scanner.parts) if scanner is not None else ()
    return Body(digest.hexdigest(), length, whole, parts, complete)
