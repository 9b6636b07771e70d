"""An upstream's answer on its way back to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.caller import Caller
    from proxy.send import Reply, Sending
    from proxy.upstream.codec import Head
    from proxy.upstream.connection import Connection

_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


async def relay(
    reply: Reply, sending: Sending, caller: Caller, id_line: bytes, cors: list[bytes]
) -> None:
    """Pass one answer on: its fields in their order, ours behind them, its body as it comes.

    `cors` are the lines that a browser needs, in place of the upstream's. The reply's connection
    is given back, whatever happens.
    """
    connection = reply.connection
    if connection is not None:
        try:
            start = _start(reply.head, sending, caller, id_line, cors)
            await _stream(connection, start, reply.pieces, sending, caller)
        finally:
            sending.finish(reply)
        return
    data = _start(reply.head, sending, caller, id_line, cors)  # it settles the framing
    if reply.head.status not in _BODILESS:
        data += caller.frame(reply.pieces, last=True)
    caller.write(b"".join(data))
    if caller.connection.writing_paused:
        await caller.drain(sending.route.pool.now)


async def _stream(
    connection: Connection,
    start: list[bytes],
    pieces: list[bytes],
    sending: Sending,
    caller: Caller,
) -> None:
    """Send an answer as it comes, no faster than the caller takes it."""
    complete = False
    while True:
        data = start + caller.frame(pieces, last=complete)
        if data:
            caller.write(b"".join(data))
        if caller.connection.writing_paused:
            await caller.drain(sending.route.pool.now)
        if complete:
            return
        await connection.more(sending.route.timeout.idle)
        start, pieces, complete = [], connection.take(), connection.reader.complete


def _start(
    head: Head, sending: Sending, caller: Caller, id_line: bytes, cors: list[bytes]
) -> list[bytes]:
    lines, status = head.fields.lines, head.status
    location = head.fields.read.get("location")
    if location is not None:
        lines = _relocated(lines, sending.relocate(location))
    bodiless = status in _BODILESS or caller.method == "HEAD"
    if status == _NO_CONTENT and head.length is not None:
        lines = _without(lines, b"content-length:")  # RFC 9110, 8.6
    if cors:
        lines = _without(lines, b"access-control-")
    lines.append(id_line)
    lines += cors
    return caller.head(status, head.reason, lines, framed=bodiless or head.length is not None)


def _relocated(lines: list[bytes], location: bytes) -> list[bytes]:
    """Put another Location into the place of the upstream's."""
    moved = b"Location: %b\r\n" % location
    return [moved if _is(line, b"location:") else line for line in lines]


def _is(line: bytes, start: bytes) -> bool:
    return line[: len(start)].lower() == start


def _without(lines: list[bytes], start: bytes) -> list[bytes]:
    return [line for line in lines if not _is(line, start)]
