"""The listeners: aiohttp's server on TCP and unix sockets, with limits on what callers may hold."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from proxy import sockets
from proxy.caller import CLOSE
from proxy.errors import ProxyError, bad_request, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import StreamReader

    from proxy.addresses import Listen

logger = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_LINE_AT_MOST: Final = 16 * 1024  # bytes of the request line's target
_FIELD_AT_MOST: Final = 16 * 1024  # bytes of a field's name and value
_FIELDS_AT_MOST: Final = 100
# Long, so that the caller's own keep-alive limit is the shorter one and it never races ours.
_KEEP_ALIVE: Final = 3600.0
_AT_ONCE: Final = 0.01  # seconds
_TOO_MANY_FIELDS: Final = "Too many headers received"


class Handler(Protocol):
    """What a listener does with requests."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request."""
        ...

    def reject(self, request: web.BaseRequest, error: ProxyError) -> web.StreamResponse:
        """Answer what could not be parsed."""
        ...


class CallerConnection(web.RequestHandler):
    """One caller's connection. `caller` is its address, or the process at a unix socket."""

    __slots__ = ("_content", "_heard", "_listener", "busy", "caller", "head_since")

    def __init__(self, manager: Listener, **options: Any) -> None:
        super().__init__(manager, **options)
        self._listener = manager
        self.caller = ""
        self._heard = False  # a part of a request has come that is not served yet
        self._content: StreamReader = EMPTY_PAYLOAD
        self.busy = False
        self.head_since = math.inf  # the loop's time from which a head is waited for

    @property
    def is_idle(self) -> bool:
        """Tell whether the last answer is out, and nothing of another request has come."""
        return self._waiter is not None and not self._heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the caller, or turn it away at the limit."""
        if not self._listener.admit(self):
            refused = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
            refused.write(_overloaded())
            refused.close()
            self.force_close()
            return
        self.caller = _peer(transport)
        self.head_since = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another caller."""
        self._listener.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the clock of a head, unless a request is being served."""
        if not self.busy and not self._heard and self._content.is_eof():
            self._heard = True
            self.head_since = min(self.head_since, self._loop.time())
        super().data_received(data)
        if self.busy and self._messages:
            self._break_body()

    @contextmanager
    def serving(self, content: StreamReader) -> Iterator[None]:
        """Mark that a request is being served. Its body may come later than its answer goes."""
        self._content = content
        self.head_since = math.inf
        self._heard = False
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def _break_body(self) -> None:
        """Tell who reads a body that its framing is broken: aiohttp tells only who comes next."""
        request = self._current_request
        if request is None or request.content.is_eof():
            return
        if isinstance(self._messages[-1][0], _ErrInfo):
            request.content.set_exception(ValueError("broken framing"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused, without a word of what stood there.

        A 5xx means that an exception got out of a handler: whether an answer has left is not
        known, so the connection ends.
        """
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("serving a request failed unexpectedly", exc_info=exc)
            if self.transport is not None:
                self.transport.abort()
            return CLOSE
        if isinstance(exc, LineTooLong) or (message or "").startswith(_TOO_MANY_FIELDS):
            error = ProxyError(
                "header_too_large",
                f"A request may have {_LINE_AT_MOST} bytes of target and {_FIELDS_AT_MOST} "
                f"header fields of {_FIELD_AT_MOST} bytes.",
            )
        else:
            error = bad_request("The request is not valid HTTP/1.1.")
        return self._listener.handler.reject(request, error)


class Listener(web.Server):
    """One listening address and the connections that came by it.

    `room` bounds the connections, `header_timeout` the seconds that a head may take to come.
    """

    def __init__(
        self, listen: Listen, handler: Handler, *, room: Room, header_timeout: float
    ) -> None:
        super().__init__(self._serve, handler_cancellation=True)
        self.listen = listen
        self.handler = handler
        self._room = room
        self.header_timeout = header_timeout
        self._server: asyncio.Server | None = None
        self._callers: set[CallerConnection] = set()

    def __call__(self) -> CallerConnection:
        """Make the protocol of a new connection."""
        return CallerConnection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEP_ALIVE,
            max_field_size=_FIELD_AT_MOST,
            max_headers=_FIELDS_AT_MOST,
            max_line_size=_LINE_AT_MOST,
        )

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, CallerConnection)  # noqa: S101 - as __call__ made it
        with protocol.serving(request.content):
            return await self.handler.handle(request)

    async def start(self, *, socket_mode: int = 0o600) -> None:
        """Begin to accept; OSError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        sock = await asyncio.to_thread(sockets.bind, self.listen, socket_mode)
        try:
            if self.listen.path is not None:
                self._server = await loop.create_unix_server(self, sock=sock, backlog=_BACKLOG)
            else:
                self._server = await loop.create_server(self, sock=sock, backlog=_BACKLOG)
                self.listen = self.listen._replace(port=sock.getsockname()[1])
        except BaseException:
            sock.close()
            raise

    @property
    def url(self) -> str:
        """The address as callers write it."""
        if self.listen.path is not None:
            return str(self.listen)
        return f"http://{self.listen}"

    def admit(self, caller: CallerConnection) -> bool:
        """Count a connection in, if there is room."""
        if not self._room.take():
            return False
        self._callers.add(caller)
        return True

    def leave(self, caller: CallerConnection) -> None:
        """Count a connection out."""
        if caller in self._callers:
            self._callers.discard(caller)
            self._room.give_back()

    def sweep(self, now: float) -> None:
        """Drop callers whose request head does not come to an end; `now` is the loop's time."""
        for caller in list(self._callers):
            if now - caller.head_since > self.header_timeout and caller.transport is not None:
                caller.transport.abort()

    def stop_accepting(self) -> None:
        """Close the listening socket; callers stay until `close_idle` finds them idle."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self.listen.path is not None:
                Path(self.listen.path).unlink(missing_ok=True)

    def close_idle(self) -> bool:
        """Close the connections on which nothing is happening; True once none is left.

        aiohttp's own `pre_shutdown` would make busy ones deaf to the rest of their upload.
        """
        for caller in list(self._callers):
            if caller.is_idle:
                caller.force_close()
        return not self._callers

    async def close(self) -> None:
        """Close everything now."""
        self.stop_accepting()
        # To aiohttp 0 means for ever: until the caller of an idle connection hangs up.
        await self.shutdown(_AT_ONCE)


class Room:
    """How many connections all listeners may hold together."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.taken = 0

    def take(self) -> bool:
        """Take a place, if there is one."""
        if self.taken >= self.at_most:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        """Free a place."""
        self.taken -= 1


def _overloaded() -> bytes:
    error = ProxyError("overloaded", "limits.connections is reached.", retry_after=1)
    body = problem(error, route="", request_id="")
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        b"X-Ekeko-Error: overloaded\r\nRetry-After: 1\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def _peer(transport: asyncio.BaseTransport) -> str:
    """Name the caller: its address, or the process at the other end of a unix socket."""
    peername = transport.get_extra_info("peername")
    if isinstance(peername, tuple):
        return str(peername[0])
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "SO_PEERCRED"):
        return "unix"
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"unix:pid={pid},uid={uid}"
