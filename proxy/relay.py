"""An upstream's answer on its way back to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.caller import LAST_CHUNK
from proxy.scrub import Scrubber, masked

if TYPE_CHECKING:
    from proxy.caller import Caller
    from proxy.route import Route
    from proxy.send import Reply, Sending
    from proxy.upstream.codec import Head

_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


def relay_whole(
    reply: Reply, sending: Sending, caller: Caller, id_line: bytes, cors: list[bytes]
) -> None:
    """Pass on an answer that is all there: its fields in their order, ours behind them, its body.

    `cors` are the lines that a browser needs, in place of the upstream's.
    """
    data = _start(reply.head, sending, caller, id_line, cors)  # it settles the framing
    if reply.head.status not in _BODILESS:
        data += caller.frame(reply.pieces)
        if caller.chunked:
            data.append(LAST_CHUNK)
    caller.write(without_echoes(b"".join(data), reply, sending.route))


async def relay_stream(
    reply: Reply, sending: Sending, caller: Caller, id_line: bytes, cors: list[bytes]
) -> None:
    """Pass on an answer as it comes, no faster than the caller takes it; as `relay_whole`.

    The reply's connection is given back, whatever happens.
    """
    connection, route = reply.connection, sending.route
    assert connection is not None  # noqa: S101 - a reply without one is whole
    reader = connection.reader
    try:
        head = b"".join(_start(reply.head, sending, caller, id_line, cors))
        data, pieces = [without_echoes(head, reply, route)], reply.pieces
        scrubber = Scrubber(reply.needles) if reply.needles else None
        while True:
            is_last = reader.complete and not reader.size
            if scrubber is not None:
                pieces = [_scrubbed(scrubber, pieces, route, last=is_last)]
            data += caller.frame(pieces)
            if is_last and caller.chunked:
                data.append(LAST_CHUNK)
            caller.write(b"".join(data))
            if caller.connection.writing_paused:
                await caller.drain(route.pool.now)
            if is_last:
                return
            await connection.more(route.timeout.idle)
            data, pieces = [], connection.take()
    finally:
        sending.finish(reply)


def without_echoes(data: bytes, reply: Reply, route: Route) -> bytes:
    """Mask what an answer, or a part of it that stands by itself, echoes of the credential."""
    if not reply.needles:
        return data
    scrubbed = masked(data, reply.needles)
    if scrubbed is not data:
        route.tell_of_echo()
    return scrubbed


def _scrubbed(scrubber: Scrubber, pieces: list[bytes], route: Route, *, last: bool) -> bytes:
    data = scrubber.feed(b"".join(pieces))
    if last:
        data += scrubber.end()
    if scrubber.has_masked:
        route.tell_of_echo()
    return data


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
    return caller.head(status, head.reason, lines, 0 if bodiless else head.length)


def _relocated(lines: list[bytes], location: bytes) -> list[bytes]:
    """Put another Location into the place of the upstream's."""
    moved = b"Location: %b\r\n" % location
    return [moved if _is(line, b"location:") else line for line in lines]


def _is(line: bytes, start: bytes) -> bool:
    return line[: len(start)].lower() == start


def _without(lines: list[bytes], start: bytes) -> list[bytes]:
    return [line for line in lines if not _is(line, start)]
