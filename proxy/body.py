"""A caller's request body: passed on as it comes, and kept while it is small.

A kept body can be signed over, and sent a second time after a 401. Bodies up to 1 MiB are kept;
all that are being kept at one time share a budget, so that memory stays bounded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from aiohttp.streams import EMPTY_PAYLOAD

from proxy.caller import VERSIONS
from proxy.errors import ProxyError, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader

    from proxy.caller import Caller

# More digits are nobody's body, and 2**64 - 1 is what llhttp keeps where there is no length.
_DIGITS_AT_MOST: Final = 18
KEEP_AT_MOST: Final = 1024 * 1024  # bytes of one body


class Budget:
    """How many bytes of bodies are kept at the moment, and may be kept at most."""

    def __init__(self, at_most: int = 256 * 1024 * 1024) -> None:
        self.at_most = at_most
        self.kept = 0

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more may be kept."""
        return self.kept + size <= self.at_most


class RequestBody:
    """A body of `length` bytes, or of unknown length (chunked): at most `limit` bytes.

    `on_read` is called once, before the proxy first waits for a byte that has not come yet: the
    moment to answer `Expect: 100-continue`. `waiting_since` is the time (of `now`) from which the
    caller is being waited for.
    """

    __slots__ = (
        "_budget",
        "_content",
        "_kept",
        "_limit",
        "_now",
        "_on_read",
        "_reserved",
        "ended",
        "length",
        "received",
        "waiting_since",
    )

    def __init__(
        self,
        content: StreamReader,
        length: int | None,
        *,
        limit: int | None,
        budget: Budget,
        now: Callable[[], float],
        on_read: Callable[[], None] | None = None,
    ) -> None:
        self._content = content
        self._limit = limit
        self._budget = budget
        self._now = now
        self._on_read = on_read
        self._kept: bytes | bytearray | None = b""
        self._reserved = 0
        self.length = length
        self.received = 0
        self.waiting_since = math.inf
        self.ended = length == 0
        if length is not None:
            self._check(length)
            if length > KEEP_AT_MOST:
                self._kept = None
        if not self.ended and content.is_eof():
            # It came in the same packet as the head, as small bodies do: nothing to wait for, and
            # nothing to save by not keeping it.
            self._count(piece := _read_nowait(content))
            self._kept = b""
            self._keep(piece)
            self._end()

    @property
    def whole(self) -> bytes | None:
        """The whole body, if it has ended and was kept."""
        if not self.ended or self._kept is None:
            return None
        if isinstance(self._kept, bytearray):
            self._kept = bytes(self._kept)
        return self._kept

    async def read_whole(self) -> bytes:
        """Wait for the end.

        ProxyError: `body_too_large` if there is more than is ever kept, `overloaded` if no more
        can be kept at the moment.
        """
        while self._kept is not None and await self.next():
            pass
        whole = self.whole
        if whole is None and max(self.received, self.length or 0) <= KEEP_AT_MOST:
            raise ProxyError(
                "overloaded",
                "Too many request bodies are being kept just now.",
                retry_after=1,
                limit="kept_bodies",
            )
        if whole is None:
            raise ProxyError(
                "body_too_large",
                f"The body of a call that is signed over may have {KEEP_AT_MOST} bytes at most.",
                limit="signed_body",
            )
        return whole

    async def next(self) -> bytes:
        """Wait for the next piece and return it, b"" at the end.

        ProxyError: `body_too_large` past the limit, `bad_request` for broken chunked framing.
        """
        if self.ended:
            return b""
        if self._on_read is not None:
            on_read, self._on_read = self._on_read, None
            on_read()
        self.waiting_since = self._now()
        piece = await _read(self._content)
        self.waiting_since = math.inf
        if piece:
            self._take(piece)
        else:
            self._end()
        return piece

    def forget(self) -> None:
        """Give back the memory that this body was promised."""
        self._budget.kept -= self._reserved
        self._reserved = 0

    def _take(self, piece: bytes) -> None:
        self._count(piece)
        if self.received > KEEP_AT_MOST or not self._budget.has_room(len(piece)):
            self._kept = None
            self.forget()
        else:
            self._keep(piece)

    def _count(self, piece: bytes) -> None:
        self.received += len(piece)
        self._check(self.received)

    def _keep(self, piece: bytes) -> None:
        if self._kept is None:
            return
        if not self._kept:
            self._kept = piece  # most bodies come in one piece: no copy
        elif isinstance(self._kept, bytes):
            self._kept = bytearray(self._kept + piece)
        else:
            self._kept += piece
        self._reserved += len(piece)
        self._budget.kept += len(piece)

    def _end(self) -> None:
        """Note the end. A body that is not as long as announced would swallow what follows it."""
        if self.length is not None and self.received != self.length:
            raise bad_request("The body is not as long as its Content-Length says.")
        self.ended = True

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise ProxyError(
                "body_too_large", f"This route's max_body is {self._limit} bytes.", limit="max_body"
            )


# What most requests have.
NO_BODY: Final = RequestBody(EMPTY_PAYLOAD, 0, limit=None, budget=Budget(), now=lambda: 0.0)


def read_framing(
    caller: Caller,
    read: dict[str, bytes],
    limit: int | None,
    budget: Budget,
    now: Callable[[], float],
) -> RequestBody:
    """Read how a request's body is framed; aiohttp's parser has refused what is ambiguous.

    ProxyError: `bad_request`, or `body_too_large` if more than `limit` bytes are announced.
    """
    version = caller.version
    if version not in VERSIONS:
        raise bad_request("The request is neither HTTP/1.1 nor HTTP/1.0.")
    invite = None
    if "expect" in read and version >= (1, 1):  # RFC 9110, 10.1.1
        if read["expect"].lower() != b"100-continue":
            raise bad_request("The only expectation that can be met is 100-continue.")
        invite = caller.invite_body
    length: int | None = None
    if "transfer-encoding" in read:
        if version < (1, 1):
            raise bad_request("HTTP/1.0 has no Transfer-Encoding.")
        if read["transfer-encoding"].lower() != b"chunked":
            raise bad_request("The only Transfer-Encoding that is understood is 'chunked'.")
    elif "content-length" in read:
        announced = read["content-length"]
        if not announced.isdigit() or len(announced) > _DIGITS_AT_MOST:
            raise bad_request("The Content-Length is not a plausible number of bytes.")
        length = int(announced)
    else:
        return NO_BODY
    return RequestBody(caller.content, length, limit=limit, budget=budget, now=now, on_read=invite)


async def _read(content: StreamReader) -> bytes:
    try:
        return await content.readany()
    except (ConnectionError, ProxyError):
        raise
    except Exception:  # noqa: BLE001 - aiohttp sets several kinds; all mean broken framing
        raise bad_request("The request body's chunked framing is broken.") from None


def _read_nowait(content: StreamReader) -> bytes:
    try:
        return content.read_nowait()
    except Exception:  # noqa: BLE001 - as above
        raise bad_request("The request body's chunked framing is broken.") from None
