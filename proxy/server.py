"""One caller's connection: aiohttp reads requests from it, we serve one after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import StreamReader
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

# Not from aiohttp.web: that brings routing, static files and the like, a third of a cold start.
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo
from aiohttp.web_server import Server

from proxy import measure, peer
from proxy.caller import Caller
from proxy.errors import ProxyError, bad_request
from proxy.measure import END

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttp.http import RawRequestMessage

    from proxy.limits import Limits

logger = logging.getLogger(__name__)

_LINGER: Final = 10.0  # seconds
_FAREWELL: Final = 60.0  # seconds that a caller may take for the end of a last answer
_BEHIND_AT_MOST: Final = 64 * 1024  # bytes taken behind a request that is being served
_BLANK_LINE: Final = (b"\r", b"\n")
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"  # with the end of what stands before it
_TOO_MANY_FIELDS: Final = "Too many headers received"


class Handler(Protocol):
    """What a listener does with requests."""

    def handle(self, caller: Caller) -> Awaitable[None]:
        """Serve a request, and answer it by its caller."""
        ...

    def reject(self, caller: Caller, error: ProxyError) -> None:
        """Answer what could not be parsed."""
        ...


class Acceptor(Server):
    """Where connections come from: it counts them, and says who serves what they bring."""

    handler: Handler
    limits: Limits

    def admit(self, caller: CallerConnection) -> bytes | None:
        """Count a connection in; return the answer instead if there is no room for it."""
        raise NotImplementedError

    def leave(self, caller: CallerConnection) -> None:
        """Count a connection out."""
        raise NotImplementedError


class CallerConnection(RequestHandler):
    """One caller's connection. `peer` is its address, or the process at a unix socket.

    aiohttp accepts, parses and buffers; `start` serves. `who` is whose connections are counted
    together: an address, or a user at a unix socket; `proven` are the names of a caller that belong
    to the connection. `head_since` is the loop's time from which a head is waited for, `idle_since`
    from which nothing was heard, `ended_at` from which only the rest of an answer has to leave.
    """

    __slots__ = (
        "_behind",
        "_beyond",
        "_bounds",
        "_content",
        "_framing",
        "_heard",
        "_is_cut",
        "_listener",
        "_part",
        "_tail",
        "_uncut",
        "busy",
        "ended_at",
        "head_since",
        "idle_since",
        "peer",
        "proven",
        "who",
    )

    def __init__(self, manager: Acceptor, **options: Any) -> None:
        super().__init__(manager, **options)
        self._listener = manager
        self._bounds = manager.limits.bounds
        self.peer = ""
        self.who = ""
        self.proven: tuple[str, ...] = ()
        self._content: StreamReader = EMPTY_PAYLOAD
        self._heard = False  # a part of a request has come that is not served yet
        self._behind = 0  # bytes that have come behind the request that is being served
        # Bytes that have come behind the last request that was read: of the next one's head. Below
        # 0, so many of its body are still to come; minus infinity, until its chunks have ended.
        self._beyond: float = 0
        self._framing = 0  # bytes since the last one of the body that is being read
        self._tail = b""  # how what came last ended, if within a chunked body
        self._part = b""  # how what came last ended, if within a head; all of it, if unread
        self._uncut: RawRequestMessage | None = None  # nothing stood behind its head
        self._is_cut = False  # what stood behind the head that is being served was dropped
        self.busy = False
        self.head_since = math.inf
        self.idle_since = math.inf
        self.ended_at = math.inf

    @property
    def is_idle(self) -> bool:
        """Tell whether the last answer is out, and nothing of another request has come."""
        return (self._waiter is not None and not self._heard) or self._lingers

    @property
    def farewell(self) -> float:
        """Tell how many seconds the caller may still take when it is served no more."""
        return _LINGER if self._lingers else _FAREWELL

    @property
    def _lingers(self) -> bool:
        """Tell whether a refusal has left, and what its caller goes on to send is dropped."""
        return self._close and self.ended_at < math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the caller, or turn it away at the limit."""
        self.peer, self.who, self.proven = peer.of(transport)
        refusal = self._listener.admit(self)
        if refusal is not None:
            refused = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
            refused.write(refusal)
            refused.close()
            self.force_close()
            return
        self.head_since = self._loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another caller, and tell who reads the body of this one."""
        self._listener.leave(self)
        super().connection_lost(exc)
        if not self._content.is_eof():
            self._content.set_exception(ConnectionResetError("the caller has gone"))

    def data_received(self, data: bytes) -> None:
        """Start the clock of a head, unless a request is being served.

        aiohttp calls this without data to have it parsed what the parser has kept.
        """
        if data.startswith(_BLANK_LINE) and self._stands_before_a_head:
            data = data.lstrip(b"\r\n")
            if not data:
                return
        if data:
            self._note(data)
        known, content = len(self._messages), self._content
        before = content.total_bytes
        super().data_received(data)
        if before == content.total_bytes and not content.is_eof():
            self._count_framing(content, data)
        else:
            self._framing = 0
        if self._messages:
            self._look_at(self._messages[-1][0], data)
        if len(self._messages) > known:
            self._measure(data, known)
        else:
            self._beyond += len(data)
            if self._beyond > 0:
                self._take_part(data)

    @property
    def _stands_before_a_head(self) -> bool:
        """Tell whether nothing of the next head has come: blank lines are no part of it.

        RFC 9112, 2.2 asks to ignore them.
        """
        is_served = self._content.is_eof() and not self._messages
        return is_served and self._beyond == 0 and not self._upgraded

    def _note(self, data: bytes) -> None:
        """See what arrives: a part of a body, of a head, or more behind a request."""
        if not self._content.is_eof():
            self._tail = (self._tail + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        elif self.busy:
            self._behind += len(data)
            if self._behind > _BEHIND_AT_MOST and not self._buffer_paused:
                self._pause_reading_for_buffer()
        elif not self._heard:
            self._expect_head()

    def _look_at(self, message: RawRequestMessage | _ErrInfo, data: bytes) -> None:
        """See to what aiohttp's parser does not tell of the last message, after more `data`."""
        if isinstance(message, _ErrInfo):
            # aiohttp would tell only who comes next; a body that is whole is none the worse for it.
            if self.busy and not self._content.is_eof():
                self._content.set_exception(ValueError("broken framing"))
            return
        if message.chunked:
            self._tail = data[-len(_LAST_CHUNK) :]
        if message.upgrade:
            # Unless it is a WebSocket's, the parser drops what stands behind it.
            _, end, rest = (self._part + data).partition(END)
            self._uncut = message if end and not rest else None

    def _count_framing(self, content: StreamReader, data: bytes) -> None:
        """Break off a body of which no more comes, but chunk extensions or trailers without end."""
        self._framing += len(data)
        if self._framing > self._bounds.header_bytes and not self._reading_paused:
            content.set_exception(self._listener.limits.too_large("header_bytes"))
            self._close = True

    def _measure(self, data: bytes, known: int) -> None:
        """Find where the last of the new messages ends, and refuse heads that are too large.

        `known` messages came before.
        """
        message, content = self._messages[-1]
        came = self._beyond + len(data)
        within = came <= self._bounds.header_bytes
        if within and content is EMPTY_PAYLOAD and data.endswith(END) and not self._buffer_paused:
            self._beyond, self._part = 0, b""  # as most requests come
            return
        if isinstance(message, _ErrInfo):
            return
        new = [cast("RawRequestMessage", each) for each, _ in islice(self._messages, known, None)]
        if not within and (good := self._count_good(new)) < len(new):
            while len(self._messages) > known + good:
                self._messages.pop()
            self._refuse(self._listener.limits.too_large("header_bytes"))
        elif message.chunked or self._beyond == -math.inf:
            self._beyond = -math.inf
        elif message.upgrade:
            self._beyond = 0  # the parser keeps, or drops, what stands behind it
        else:
            at = max(0, -int(self._beyond))
            if not self._part:  # else the first of them has begun
                at = measure.past_blank_lines(data, at)
            data = self._part + data
            self._beyond = measure.behind(new, data, at)
        self._part = b""
        if self._beyond > 0:
            self._take_part(data)

    def _count_good(self, requests: list[RawRequestMessage]) -> int:
        """Count the requests before the first whose head is too large."""
        at_most = self._bounds.header_bytes
        return sum(1 for _ in takewhile(lambda one: measure.head_size(one) <= at_most, requests))

    def _take_part(self, data: bytes) -> None:
        """Note that something came which is not a whole request, or so it seems."""
        is_held = self._buffer_paused or self._reading_paused  # it may be whole requests
        self._part = (self._part + data)[-int(self._beyond) if is_held else 1 - len(END) :]
        is_too_large = self._beyond > self._bounds.header_bytes and not is_held
        if is_too_large and not self._upgraded and not self._close:
            self._refuse(self._listener.limits.too_large("header_bytes"))

    def _refuse(self, error: ProxyError) -> None:
        """Let this be the answer behind those that are due, and hear no more."""
        self._messages.append((_ErrInfo(error.status, error, ""), EMPTY_PAYLOAD))
        self._close = True  # aiohttp drops what comes from here
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def hurry(self) -> None:
        """Give up a head that has not come to its end in time, or has not even begun."""
        self.head_since = math.inf
        if self._heard:
            self._refuse(self._listener.limits.too_late())
        elif self.transport is not None:
            self._listener.limits.note_unlogged("header_timeout")
            self.transport.abort()

    async def start(self) -> None:
        """Serve one request after another: aiohttp runs this once, as the connection's task.

        It stands in for aiohttp's own loop, which makes a task, a request, a writer and a response
        for each: that costs more than all that the proxy does with one.
        """
        try:
            await self._serve()
        except ConnectionError:
            pass  # the caller has gone
        except Exception:
            # Whether an answer has left is not known, so the connection ends.
            logger.exception("serving a request failed unexpectedly")
            if self.transport is not None:
                self.transport.abort()
        finally:
            self.busy = False
            self._task_handler = None
            self.ended_at = self._loop.time()
            if self.transport is not None:
                self._hang_up(self.transport)

    def _hang_up(self, transport: asyncio.Transport) -> None:
        """Close; but let a caller that was refused see why, while it still sends.

        To close with bytes unread resets the connection, and loses an answer on its way.
        """
        if not self._close or transport.is_closing() or not transport.can_write_eof():
            transport.close()
            return
        with contextlib.suppress(OSError):  # the caller has gone
            transport.write_eof()
        if self._buffer_paused:
            self._resume_reading_for_buffer()

    async def _serve(self) -> None:
        handler = self._listener.handler
        while not self._force_close:
            if self._messages:
                await asyncio.sleep(0)  # who sends many at once lets others have their turn
            else:
                self.busy = False
                await self._more()
            self.busy = True
            message, content = self._next()
            if isinstance(message, _ErrInfo):
                handler.reject(Caller(self, ERROR, content), self._refusal(message))
                self._close = True
                return
            caller = Caller(self, message, content)
            if message.upgrade or message.chunked:
                self._see_what_is_lost(caller, message)
            await handler.handle(caller)
            if not content.is_eof():
                await _read_rest(content)
            if not caller.keep_alive or not content.is_eof():
                return
            if message.chunked and not self._is_past_chunks():
                return
            if self._paused and not await self._takes_more():
                return
            if self._behind or self._upgraded or self._buffer_paused:
                self._go_on()

    def _see_what_is_lost(self, caller: Caller, message: RawRequestMessage) -> None:
        """Let a request be the last one where what stands behind it may not be heard aright.

        Its caller will see what was not answered.
        """
        if message.upgrade:
            self._is_cut = message is not self._uncut and not self._holds_what_is_behind
            if self._is_cut or caller.content is not EMPTY_PAYLOAD:
                caller.keep_alive = False
        elif self._may_hold_trailer():
            caller.keep_alive = False

    def _may_hold_trailer(self) -> bool:
        """Tell whether aiohttp's parser may hold a trailer of the chunked request being served.

        It would take that for a field of the next one: there must be none on this connection.
        """
        return self._content.is_eof() and (
            self._tail != _LAST_CHUNK or self._behind > 0 or bool(self._messages)
        )

    def _is_past_chunks(self) -> bool:
        """Go on to count what is of a next head, unless the request that was served is the last."""
        if self._may_hold_trailer():
            return False
        self._beyond = 0
        return True

    @property
    def _holds_what_is_behind(self) -> bool:
        """Tell whether aiohttp's parser has stopped behind the request that is being served."""
        return self._upgraded and not self._messages

    async def _takes_more(self) -> bool:
        """Wait until the caller has taken answers; False if it does not.

        Most have waited by now. The proxy's own answers have not, and without an end to them they
        would pile up for a caller that sends and never reads.
        """
        try:
            async with asyncio.timeout(_LINGER):
                await self.drain()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return False
        return True

    def _go_on(self) -> None:
        """Turn to what came behind the request that has been served."""
        if self._holds_what_is_behind:
            self._go_on_with_http()
        elif self._buffer_paused and not self._messages:
            self._resume_reading_if_drained()
        self._behind = 0

    async def _more(self) -> None:
        """Wait until `data_received` has read a request."""
        if self._beyond > 0 and not self._heard:
            self._expect_head()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _next(self) -> tuple[RawRequestMessage | _ErrInfo, StreamReader]:
        """Take the next request, and let more be read."""
        message, self._content = self._messages.popleft()
        self.head_since = self.idle_since = math.inf
        self._heard = False
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return message, self._content

    def _go_on_with_http(self) -> None:
        """Read what came behind a request to switch protocols, which has been declined."""
        if self._parser is not None:
            self._parser.set_upgraded(False)
        self._upgraded = False
        self._beyond = 0
        tail, self._message_tail = self._message_tail, b""
        if tail:
            self.data_received(tail)
        if self._buffer_paused:
            self._resume_reading_if_drained()

    def _expect_head(self) -> None:
        """Start the clock of a head, of which a part has come."""
        self._heard = True
        self.head_since = min(self.head_since, self._loop.time())

    def _refusal(self, found: _ErrInfo) -> ProxyError:
        """Say why a request was refused, without a word of what stood there."""
        exc, limits = found.exc, self._listener.limits
        if isinstance(exc, ProxyError):
            return exc
        if isinstance(exc, LineTooLong):
            is_target = exc.args[1] == self._bounds.request_line
            return limits.too_large("request_line" if is_target else "header_bytes")
        if (found.message or "").startswith(_TOO_MANY_FIELDS):
            return limits.too_large("header_fields")
        return bad_request("The request is not valid HTTP/1.1.")

    def drain(self) -> Awaitable[None]:
        """Wait until the caller takes more; ConnectionError if it has gone."""
        return self._drain_helper()

    def switch(self) -> StreamReader:
        """Stop reading HTTP: what the caller sends from here is a stream.

        ConnectionError if it spoke before the switch, and was taken for speaking HTTP.
        """
        if self._messages or (not self._upgraded and (self._behind or self._is_cut)):
            raise ConnectionResetError("the caller did not wait for the switch")
        self._upgraded = True
        self._beyond = -math.inf
        self._content = StreamReader(self, self._read_bufsize, loop=self._loop)
        self.set_parser(cast("Any", _Unparsed(self._content)))
        return self._content

    def cancel(self) -> None:
        """Raise CancelledError where a request is being served."""
        if self._task_handler is not None:
            self._task_handler.cancel()


class _Unparsed:
    """Stands where aiohttp would have a WebSocket's reader."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self.feed_eof = content.feed_eof

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what came; it never ends by itself."""
        self._content.feed_data(data)
        return False, b""


async def _read_rest(content: StreamReader) -> None:
    """Read what is left of a body that nobody wanted, for a while.

    Closing at once would reset the connection, and lose the answer on its way to the caller.
    """
    try:
        async with asyncio.timeout(_LINGER):
            await asyncio.sleep(0)  # only then has an upload that was cancelled let go of it
            while not content.is_eof():
                await content.readany()
    except Exception:  # noqa: BLE001, S110 - too late, or broken framing: the connection ends
        pass
