"""An upstream's answer on its way back to the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.caller import Caller
    from proxy.route import Route
    from proxy.send import Reply, Sending
    from proxy.upstream.codec import Head

_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


class Relay:
    """Passes one answer on: its fields in their order, ours behind them, its body as it comes.

    `host` is the name by which the caller called, for a Location that leads back here; `cors`
    are the lines that a browser needs, in place of the upstream's.
    """

    def __init__(
        self,
        route: Route,
        caller: Caller,
        *,
        method: str,
        host: bytes,
        request_id: str,
        cors: list[bytes],
    ) -> None:
        self._route = route
        self._caller = caller
        self._method = method
        self._host = host
        self._request_id = request_id
        self._cors = cors

    async def send(self, reply: Reply, sending: Sending) -> None:
        """Send the answer, and give its connection back."""
        if reply.connection is None:
            await self._whole(reply)
        else:
            await self._stream(reply, sending)

    async def _whole(self, reply: Reply) -> None:
        """Send an answer that is all there in one write."""
        start = self._start(reply.head)  # it settles the framing
        bodiless = self._is_bodiless(reply.head)
        body = b"" if bodiless else self._caller.frame(reply.pieces, last=True)
        self._caller.write(start + body)
        await self._caller.drain()

    async def _stream(self, reply: Reply, sending: Sending) -> None:
        """Send an answer as it comes, no faster than the caller takes it."""
        connection, caller = reply.connection, self._caller
        assert connection is not None  # noqa: S101 - a reply without one is whole
        try:
            start = self._start(reply.head)
            pieces, complete = reply.pieces, False
            while True:
                caller.write(start + caller.frame(pieces, last=complete))
                await caller.drain()
                if complete:
                    return
                await connection.more(self._route.timeout.idle)
                start, pieces, complete = b"", connection.take(), connection.reader.complete
        finally:
            sending.finish(reply)

    def _is_bodiless(self, head: Head) -> bool:
        return self._method == "HEAD" or head.status in _BODILESS

    def _start(self, head: Head) -> bytes:
        lines = self._relocated(head)
        if head.status == _NO_CONTENT and head.length is not None:
            lines = _without(lines, b"content-length:")  # RFC 9110, 8.6
        if self._cors:
            lines = _without(lines, b"access-control-")
        lines = [*lines, b"X-Request-Id: %b\r\n" % self._request_id.encode(), *self._cors]
        framed = self._is_bodiless(head) or head.length is not None
        return self._caller.head(head.status, head.reason, lines, framed=framed)

    def _relocated(self, head: Head) -> list[bytes]:
        """Turn a Location on the upstream's own origin into one on the listener's, in its place."""
        lines, location = head.fields.lines, head.fields.read.get("location")
        if location is None:
            return lines
        moved = self._route.relocate(location, self._host)
        return [b"Location: %b\r\n" % moved if _is(line, b"location:") else line for line in lines]


def _is(line: bytes, start: bytes) -> bool:
    return line[: len(start)].lower() == start


def _without(lines: list[bytes], start: bytes) -> list[bytes]:
    return [line for line in lines if not _is(line, start)]
