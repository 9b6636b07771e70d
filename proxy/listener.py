"""The listeners: TCP and unix sockets, what comes by them, and what callers may hold of it."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import http_parser

from proxy import sockets
from proxy.caller import reset
from proxy.handshake import Handshake
from proxy.server import Acceptor, CallerConnection

if TYPE_CHECKING:
    import socket

    from aiohttp.web_request import BaseRequest
    from aiohttp.web_response import StreamResponse

    from proxy.addresses import Listen
    from proxy.limits import Limits
    from proxy.server import Handler
    from proxy.tls import ListenerTls

_BACKLOG: Final = 1024
_HELD: Final = 64 * 1024  # bytes of a body; twice as many make its caller wait
# Long, so that the caller's own keep-alive limit is the shorter one and it never races ours.
_KEEP_ALIVE: Final = 3600.0
_AT_ONCE: Final = 0.01  # seconds
_LAX: Final = (
    "aiohttp is here without its C parser (is AIOHTTP_NO_EXTENSIONS set?), and the other one takes "
    "requests that can be read in two ways"
)
# From 3.13 on the event loop would remove a unix socket's file, be it ours or not.
_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Listener(Acceptor):
    """One listening address and the connections that came by it, within `limits`."""

    def __init__(
        self, listen: Listen, handler: Handler, limits: Limits, tls: ListenerTls | None
    ) -> None:
        super().__init__(_unused, handler_cancellation=True)
        self.listen = listen
        self.handler = handler
        self.limits = limits
        self.tls = tls  # for new connections
        self._server: asyncio.Server | None = None
        self._file: Path | None = None  # of a unix socket, if it is ours to remove
        self._callers: set[CallerConnection] = set()
        self._handshakes: set[Handshake] = set()

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]
        """Make the protocol of a new connection."""
        if self.tls is None:
            return self._serve()
        return Handshake(self, self.tls.context, self._serve)

    def _serve(self) -> CallerConnection:
        bounds = self.limits.bounds
        return CallerConnection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            read_bufsize=_HELD,
            keepalive_timeout=0,  # `sweep` sees to it
            max_field_size=bounds.header_bytes,
            max_headers=bounds.header_fields,
            max_line_size=bounds.request_line,
        )

    async def start(self, *, sock: socket.socket | None = None, socket_mode: int = 0o600) -> None:
        """Begin to accept; OSError if the address cannot be had, or requests not read strictly.

        `sock` has been bound by another process, which also removes a unix socket's file.
        """
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            raise OSError(0, _LAX)
        loop = asyncio.get_running_loop()
        if sock is None:
            sock = await asyncio.to_thread(sockets.bind, self.listen, socket_mode)
            self._file = None if self.listen.path is None else Path(self.listen.path)
        try:
            if self.listen.path is not None:
                self._server = await loop.create_unix_server(
                    self, sock=sock, backlog=_BACKLOG, **_KEEP_FILE
                )
            else:
                self._server = await loop.create_server(self, sock=sock, backlog=_BACKLOG)
                self.listen = self.listen._replace(port=sock.getsockname()[1])
        except BaseException:
            sock.close()
            raise

    @property
    def url(self) -> str:
        """The address as callers write it."""
        return self.listen.url(secure=self.tls is not None)

    def admit(self, caller: CallerConnection) -> bytes | None:
        """Count a connection in; return the answer instead if there is no room for it."""
        refusal = self.limits.take(caller.who)
        if refusal is None:
            self._callers.add(caller)
        return refusal

    def leave(self, caller: CallerConnection) -> None:
        """Count a connection out."""
        if caller in self._callers:
            self._callers.discard(caller)
            self.limits.give_back(caller.who)

    def begin(self, handshake: Handshake) -> bool:
        """Count a connection in that does not speak HTTP yet, if there is room."""
        if self.limits.take(handshake.who) is not None:
            return False
        self._handshakes.add(handshake)
        return True

    def end(self, handshake: Handshake) -> None:
        """Count it out."""
        if handshake in self._handshakes:
            self._handshakes.discard(handshake)
            self.limits.give_back(handshake.who)

    def sweep(self, now: float) -> None:
        """Give up heads that do not come to an end, and callers that left long ago.

        `now` is the loop's time.
        """
        for handshake in list(self._handshakes):
            if now - handshake.since > self.limits.bounds.header_timeout:
                self.limits.note_unlogged("header_timeout")
                handshake.abort()
        for caller in list(self._callers):
            if now - caller.head_since > self.limits.bounds.header_timeout:
                caller.hurry()
            elif now - caller.ended_at > caller.farewell and caller.transport is not None:
                reset(caller.transport)
            elif now - caller.idle_since > _KEEP_ALIVE:
                caller.force_close()
            elif caller.idle_since == math.inf and caller.is_idle:
                caller.idle_since = now

    def stop_accepting(self) -> None:
        """Close the listening socket; callers stay until `close_idle` finds them idle."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._file is not None:
                self._file.unlink(missing_ok=True)

    def close_idle(self) -> bool:
        """Close the connections on which nothing is happening; True once none is left.

        aiohttp's own `pre_shutdown` would make busy ones deaf to the rest of their upload.
        """
        for caller in list(self._callers):
            if caller.is_idle:
                caller.force_close()
        for handshake in list(self._handshakes):
            handshake.abort()
        return not (self._callers or self._handshakes)

    async def close(self) -> None:
        """Close everything now."""
        self.stop_accepting()
        for caller in self._callers:
            if caller.busy:
                caller.cancel()  # it breaks off: an answer that is cut short must not look whole
        for handshake in list(self._handshakes):
            handshake.abort()
        # To aiohttp 0 means for ever: until the caller of an idle connection hangs up.
        await self.shutdown(_AT_ONCE)


async def _unused(request: BaseRequest) -> StreamResponse:
    """Stand where aiohttp wants a handler: `CallerConnection.start` serves instead."""
    raise NotImplementedError
