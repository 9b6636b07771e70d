"""Reading HTTP/1.1 answers. Pure: bytes in, a head and body pieces out; no socket, no clock.

llhttp (through httptools) does the parsing, strictly. What it leaves to its user is done here:
- limits on the head's bytes and fields, on interim answers, on chunk overhead;
- which answers have no body whatever their fields say (RFC 9112, 6.3): to HEAD, and 204 and 304;
- framing that two readers could take differently: any Transfer-Encoding but `chunked`, one in
  HTTP/1.0, one beside a Content-Length, two Content-Lengths (RFC 9112, 6.1 and 6.3);
- an unasked 101, and bytes after the end: they must never reach the next caller.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.headers import ResponseSorter

if TYPE_CHECKING:
    from proxy.headers import Fields

HEAD_BYTES_AT_MOST: Final = 64 * 1024
FIELDS_AT_MOST: Final = 200
INTERIM_AT_MOST: Final = 8
# Chunk sizes, extensions and trailers, beyond a fair share for the body that they frame.
OVERHEAD_AT_MOST: Final = 64 * 1024

_DIGITS_AT_MOST: Final = 18  # of a Content-Length
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_USUAL_REASONS = frozenset(status.phrase.encode() for status in HTTPStatus)
_SORTER = ResponseSorter()
_BODILESS = frozenset({204, 304})
_SWITCHING_PROTOCOLS = 101
_INTERIM = 100
_FINAL = 200


class ProtocolError(Exception):
    """What came back is not HTTP/1.1, or could be read two ways. The text shows none of it."""


class Head:
    """A final answer's head. `length` is None for a body of unknown length."""

    __slots__ = ("chunked", "fields", "length", "reason", "status")

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.length: int | None = None
        self.chunked = False


class ResponseReader:
    """Reads the answers of one connection, one after another: `expect`, then `feed`.

    `head` is set once the final head is whole, `complete` once the body is. `pieces` collects body
    bytes for whoever takes them, `size` counts those not taken. Once `switched`, by a 101 that was
    asked for, every byte is such a byte.
    """

    __slots__ = (
        "_bodiless",
        "_fault",
        "_fed",
        "_fields",
        "_interim",
        "_parser",
        "_reason",
        "_until_close",
        "_upgrade",
        "complete",
        "head",
        "keep_alive",
        "pieces",
        "received",
        "size",
        "switched",
    )

    def __init__(self) -> None:
        self._parser: HttpResponseParser | None = None
        self._fed = 0
        self.complete = True
        self.keep_alive = True
        self.head: Head | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        self.switched = False

    def expect(self, method: str, upgrade: bytes | None = None) -> None:
        """Get ready for the answer to a request; `upgrade` is the protocol that it asks for."""
        if self._parser is None:
            self._parser = HttpResponseParser(self)
        self._bodiless = method == "HEAD"
        self._upgrade = upgrade
        self._fault: ProtocolError | None = None
        self._fed = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._interim = 0
        self._reason = b""
        self._until_close = False
        self.complete = False
        self.head = None
        self.keep_alive = False
        self.pieces = []
        self.received = 0
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take what came from the upstream; ProtocolError if it cannot be part of an answer.

        An answer that is complete stays so when junk follows it: only `keep_alive` is lost.
        """
        if self.complete:
            self.keep_alive = False
            return
        if self.switched:
            self._pass(data)
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # made by expect
        except HttpParserUpgrade as end:
            self._leave_http(data[end.args[0] :])
            return
        except HttpParserError:
            self._misparsed()
        if self.head is None and self._fed > HEAD_BYTES_AT_MOST:
            raise ProtocolError("its head is too large")
        framing = self._fed - self.received
        most = HEAD_BYTES_AT_MOST + OVERHEAD_AT_MOST + (self.received << 4)
        if framing > most and not self.complete:
            raise ProtocolError("its chunks are nearly all framing")

    def eof(self) -> bool:
        """Take the end of the stream; True if it ends the answer as it should."""
        if self.switched or (self.head is not None and self._until_close):
            self.complete = True
        return self.complete

    def _leave_http(self, rest: bytes) -> None:
        if not self.switched:
            raise ProtocolError("it switched protocols unasked") from None
        self._pass(rest)

    def _pass(self, data: bytes) -> None:
        """Take what is not HTTP any more."""
        if data:
            self.pieces.append(data)
            self.size += len(data)

    def take(self) -> list[bytes]:
        """Hand over the body pieces that have come."""
        pieces, self.pieces, self.size = self.pieces, [], 0
        return pieces

    @property
    def has_news(self) -> bool:
        """Tell whether there is a piece of body to take, or its end."""
        return self.complete or self.size > 0

    @property
    def untouched(self) -> bool:
        """Tell whether no byte of an answer has come."""
        return self._fed == 0

    # llhttp's callbacks.

    def on_message_begin(self) -> None:
        """Notice a second answer behind a complete one."""
        if self.complete:
            self.keep_alive = False

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in parts."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Collect a field; of trailers only the number counts."""
        self._fields.append((name, value.rstrip(b" \t") if value else b""))

    def on_headers_complete(self) -> None:
        """Judge a whole head: swallow an interim one, keep a final one."""
        if self.complete:
            return
        parser = self._parser
        status = parser.get_status_code()  # type: ignore[union-attr]  # made by expect
        if len(self._fields) > FIELDS_AT_MOST:
            self._fail("it has too many header fields")
        if self._reason not in _USUAL_REASONS and not _REASON.fullmatch(self._reason):
            self._fail("its status line holds a control character")
        is_switch = status == _SWITCHING_PROTOCOLS and self._upgrade is not None
        if status < _FINAL and not is_switch:
            self._swallow(status)
            return
        # It may have come in one piece with the rest.
        if self._fed > HEAD_BYTES_AT_MOST < len(self._reason) + _size(self._fields):
            self._fail("its head is too large")
        head = Head(status, self._reason, _SORTER.sort(self._fields))
        if is_switch:
            self._switch(head)
            return
        self._read_framing(head)
        self.head = head
        self._fields = []
        if self._bodiless or status in _BODILESS:
            # llhttp would wait for the body that the fields announce: it is not used again.
            self.complete = True
            # Nor is a connection on which a faulty upstream might send that body all the same.
            self.keep_alive = not (head.length or head.chunked) and parser.should_keep_alive()  # type: ignore[union-attr]  # as above
            self._parser = None
        else:
            self._until_close = head.length is None and not head.chunked

    def on_body(self, piece: bytes) -> None:
        """Collect a piece of the body."""
        if self.complete:
            self.keep_alive = False
            return
        if self.head is None:  # llhttp does so for a status that it does not know
            self._fail("an interim answer has a body")
        self.pieces.append(piece)
        self.size += len(piece)
        self.received += len(piece)

    def on_message_complete(self) -> None:
        """Note the end of an answer, unless it was an interim one."""
        if self.head is not None and not self.complete and not self.switched:
            if len(self._fields) > FIELDS_AT_MOST:
                self._fail("it has too many trailers")
            if _has_coding(self._fields):
                self._fail("it is framed once more, behind its body")  # against RFC 9110, 6.5.1
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]

    def _misparsed(self) -> None:
        """Refuse what is not HTTP; behind a complete answer it only costs the connection."""
        self.keep_alive = False
        if not self.complete:
            raise self._fault or ProtocolError("it is not valid HTTP/1.1") from None

    def _swallow(self, status: int) -> None:
        if status < _INTERIM:
            self._fail("its status is none of HTTP's")
        if status == _SWITCHING_PROTOCOLS:
            self._fail("it switched protocols unasked")
        if _has_coding(self._fields):
            self._fail("an interim answer has a body")  # or none: RFC 9112, 6.1 forbids it
        self._interim += 1
        if self._interim > INTERIM_AT_MOST:
            self._fail("it sends interim answers without end")
        self._fields = []
        self._reason = b""

    def _switch(self, head: Head) -> None:
        if head.fields.read.get("upgrade", b"").lower() != (self._upgrade or b"").lower():
            self._fail("it switched to a protocol that was not asked for")
        if "content-length" in head.fields.read:  # RFC 9110, 8.6
            lines = head.fields.lines
            head.fields.lines = [
                line for line in lines if not line.lower().startswith(b"content-length:")
            ]
        self.head = head
        self.switched = True
        self._parser = None  # it is not used again: the connection has left HTTP

    def _read_framing(self, head: Head) -> None:
        read = head.fields.read
        length = read.get("content-length")
        if "transfer-encoding" in read:
            if length is not None:
                self._fail("its length could be read two ways")
            version = self._parser.get_http_version()  # type: ignore[union-attr]
            if read["transfer-encoding"].lower() != b"chunked" or version != "1.1":
                self._fail("its Transfer-Encoding is not plain 'chunked'")
            head.chunked = True
        elif length is not None:
            if not length.isdigit() or len(length) > _DIGITS_AT_MOST:
                self._fail("its length could be read two ways")
            head.length = int(length)

    def _fail(self, what: str) -> None:
        self._fault = ProtocolError(what)
        raise self._fault


def _has_coding(fields: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in fields)


def _size(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in fields)
