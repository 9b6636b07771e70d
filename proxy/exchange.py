"""One request's way: guard → caller → route → path → allow → strip → authorise → send → stream.

What came in is never changed; what goes out is built beside it. Failures are ProxyErrors from
wherever they are noticed to `Exchange.run`, which answers them, or breaks the caller's connection
where an answer has begun.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
from typing import TYPE_CHECKING, Final, Protocol

from proxy import cors, identity
from proxy import target as targets
from proxy.body import NO_BODY, read_framing
from proxy.credentials.base import Outgoing
from proxy.errors import ProxyError, bad_request
from proxy.headers import RequestSorter
from proxy.observe import CALLER_CLOSED, Event
from proxy.relay import relay_stream, relay_whole, without_echoes
from proxy.send import Sending
from proxy.tunnel import SWITCHING_PROTOCOLS, Tunnel, protocol_asked_for, switch_lines

if TYPE_CHECKING:
    from proxy.body import Budget, RequestBody
    from proxy.caller import Caller
    from proxy.clock import Clock
    from proxy.guard import Guard
    from proxy.headers import Fields
    from proxy.identity import Callers
    from proxy.observe import Observer
    from proxy.route import Route
    from proxy.routing import Prefixes
    from proxy.send import Reply
    from proxy.target import Target

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_UNROUTED: Final = RequestSorter()
# Formatting a number for each request would cost more than the rest of making an id.
_SUFFIXES: Final = tuple(f"{number:03x}" for number in range(4096))
_CLIENT_CLOSED_REQUEST: Final = 499  # for the log alone; nginx's number for it


class RequestIds:
    """Makes request ids: unique in the process, and very likely everywhere."""

    def __init__(self) -> None:
        self._start = os.urandom(6).hex()
        self._block = 0
        self._prefix = f"{self._start}{0:09x}"
        self._number = 0

    def make(self) -> str:
        """Return the next id."""
        self._number += 1
        if self._number == len(_SUFFIXES):
            self._number = 0
            self._block += 1
            self._prefix = f"{self._start}{self._block:09x}"
        return self._prefix + _SUFFIXES[self._number]


class Context(Protocol):
    """What an exchange goes by: its listener's rules of the moment, and what all share."""

    guard: Guard
    callers: Callers | None
    routes: Prefixes[Route]
    budget: Budget
    clock: Clock
    observer: Observer
    ids: RequestIds
    draining: bool


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_began",
        "_body",
        "_context",
        "_cors",
        "_event",
        "_id_line",
        "_overdue",
        "_route",
        "_sending",
        "_tunnel",
        "caller",
    )

    def __init__(self, context: Context, caller: Caller) -> None:
        clock = context.clock
        self._context = context
        self.caller = caller
        self._began = clock.now()
        self._event = Event(clock.wall_ms(), caller.method, caller.connection.peer)
        self._id_line = b""
        self._route: Route | None = None
        self._body: RequestBody = NO_BODY
        self._sending: Sending | None = None
        self._tunnel: Tunnel | None = None
        self._cors: list[bytes] = []
        self._overdue: ProxyError | None = None
        if context.draining:
            caller.keep_alive = False

    async def run(self) -> None:
        """Serve the request, whatever happens, and tell the observer."""
        try:
            admitted = self._admit()
            if admitted is not None:
                await self._forward(*admitted)
        except ProxyError as error:
            self._fail(error)
        except (asyncio.CancelledError, ConnectionError):
            task = asyncio.current_task()
            if self._overdue is None or task is None:
                # The caller has gone: nobody is left to answer.
                self._event.status = self._event.status or _CLIENT_CLOSED_REQUEST
                self._event.code = CALLER_CLOSED
                self.caller.break_off()
                raise
            task.uncancel()  # it was `sweep` that cancelled
            self._fail(self._overdue)
        except Exception as error:
            logger.exception("request %s failed unexpectedly", self._event.request_id)
            self._fail(
                ProxyError(
                    "internal_error",
                    f"An error of the proxy's own ({type(error).__name__}); its log has more.",
                    sent=self._has_begun,
                )
            )
        finally:
            if self._body is not NO_BODY:
                self._body.forget()
            if self._route is not None:
                self._route.exchanges.discard(self)
            self.report()

    def sweep(self, now: float) -> None:
        """End the exchange if it takes too long, or its caller neither sends nor takes anything."""
        route = self._route
        if route is None or self._overdue is not None:
            return
        timeout = route.timeout
        if timeout.total is not None and now > self._began + timeout.total:
            what = f"The exchange took longer than the route's timeout.total, {timeout.total:g} s."
            self._expire(ProxyError("upstream_timeout", what, sent=self._has_begun))
        elif now > self._body.waiting_since + timeout.idle:
            what = f"No more of the request's body came within {timeout.idle:g} s."
            self._expire(
                ProxyError("request_timeout", what, sent=self._has_begun, limit="timeout.idle")
            )
        elif now > self.caller.waiting_since + timeout.idle:
            self.caller.waiting_since = math.inf
            self._context.observer.limited("timeout.idle")
            self.caller.break_off()

    def _expire(self, error: ProxyError) -> None:
        self._overdue = error
        self.caller.connection.cancel()

    @property
    def _has_begun(self) -> bool:
        return self._sending is not None and self._sending.attempts > 0

    # Policy.

    def _admit(self) -> tuple[Route, Target, Fields] | None:
        """Go through what every request has to pass; None if that has answered it."""
        caller, context, event = self.caller, self._context, self._event
        target, refusal = _parse(caller.method, caller.target)
        route = None if target is None else context.routes.find(target.path)
        if route is not None:
            self._route = route
            event.route = route.name
            route.exchanges.add(self)
        try:
            fields = (_UNROUTED if route is None else route.sorter).sort(caller.fields)
        except ProxyError as error:
            if context.callers is None:
                raise
            # What a route makes of a field is for callers that are known.
            fields, refusal = _UNROUTED.sort(caller.fields), error
        read = fields.read
        self._take_request_id(read.get("x-request-id"))
        context.guard.check(read)
        if target is not None and route is not None:
            event.path = route.template(target)
        if "origin" in read and self._answer_preflight(read["origin"]):
            return None
        if context.callers is not None:
            self._identify(context.callers, read.get(identity.KEY_FIELD))
        if refusal is not None:
            raise refusal
        if target is None or route is None:
            raise ProxyError("no_route", "No route of this listener has a prefix of this path.")
        if len(route.exchanges) > route.max_in_flight:  # this one is among them
            what = f"The route '{route.name}' serves its max_in_flight requests already."
            raise ProxyError("overloaded", what, retry_after=1, limit="max_in_flight")
        return route, route.strip(target), fields

    def _identify(self, callers: Callers, key: bytes | None) -> None:
        """Let those pass that are known, and that the route serves."""
        names = callers.identify(key, self.caller.connection.proven)
        self._event.identity = names[0]
        if self._route is not None:
            self._event.identity = identity.serve(names, self._route.callers)

    async def _forward(self, route: Route, target: Target, fields: Fields) -> None:
        caller, context, credential = self.caller, self._context, route.credential
        method, path = caller.method, route.base_path + target.path
        answer = credential.local_answer(method, path)
        if answer is not None:
            self._answer_locally(answer)
            return
        if not route.allows(method, target.path):
            raise ProxyError("not_allowed", f"The route '{route.name}' does not allow this call.")
        if method == "TRACE" and credential.owned:  # RFC 9110, 9.3.8
            raise ProxyError("not_allowed", "An upstream would repeat the credential to TRACE.")
        body = self._body = read_framing(
            caller, fields.read, route.max_body, context.budget, context.clock.now
        )
        fields.lines.append(self._id_line)
        signed = await body.read_whole() if credential.needs_body(method, path) else None
        sending = self._sending = Sending(
            route,
            Outgoing(method, path, target.query, fields.read, signed),
            (route.base_path + target.raw).encode("utf-8", "surrogateescape"),
            fields,
            body,
        )
        if "upgrade" in fields.read and not sending.is_financial:
            self._ask_to_switch(sending, fields, body)
        reply = await sending.reply()
        self._event.status = reply.head.status
        if sending.upgrade is not None and reply.head.status == SWITCHING_PROTOCOLS:
            await self._switch(route, sending, reply)
        elif reply.connection is None:
            relay_whole(reply, sending, caller, self._id_line, self._cors)
            if caller.connection.writing_paused:
                await caller.drain(context.clock.now)
        else:
            await relay_stream(reply, sending, caller, self._id_line, self._cors)

    def _ask_to_switch(self, sending: Sending, fields: Fields, body: RequestBody) -> None:
        sending.upgrade = protocol_asked_for(self.caller, fields.read, body)
        if sending.upgrade is not None:
            fields.lines.append(switch_lines(sending.upgrade))

    async def _switch(self, route: Route, sending: Sending, reply: Reply) -> None:
        """Pass on what is not HTTP any more."""
        assert sending.upgrade is not None  # noqa: S101 - as the caller of this has seen
        tunnel = self._tunnel = Tunnel(route, self.caller, reply)
        try:
            theirs = [b"HTTP/1.1 101 %b\r\n" % reply.head.reason, *reply.head.fields.lines]
            start = without_echoes(b"".join(theirs), reply, route)
            own = [start, self._id_line, *self._cors, switch_lines(sending.upgrade), b"\r\n"]
            await tunnel.run(b"".join(own), reply.pieces)
        finally:
            sending.finish(reply)

    def _take_request_id(self, given: bytes | None) -> None:
        if given is not None and _REQUEST_ID.fullmatch(given):
            made = given.decode()
        else:
            made = self._context.ids.make()
        self._event.request_id = made
        self._id_line = b"X-Request-Id: %b\r\n" % made.encode()

    # The proxy's own answers.

    def _answer_locally(self, body: bytes) -> None:
        self._event.status = 200
        lines = [b"Content-Type: application/json\r\n", self._id_line, *self._cors]
        self.caller.answer(200, lines, body)

    def _answer_preflight(self, origin: bytes) -> bool:
        """Answer a preflight of a listed origin; other requests of its get their fields later."""
        preflight = cors.preflight_lines(self.caller.method, self.caller.fields)
        self._cors = cors.answer_lines(origin)
        if preflight is None:
            return False
        self._event.status = 204
        self.caller.answer(204, [*self._cors, *preflight], b"")
        return True

    def _fail(self, error: ProxyError) -> None:
        """Answer an error as far as an answer can still be given."""
        if error.limit is not None:
            self._context.observer.limited(error.limit)
        if error.sent and self._sending is not None and self._sending.is_financial:
            error.as_unknown_outcome()
        if self.caller.started:
            self._event.code = error.code
            self.caller.break_off()
        else:
            self.answer_error(error)

    def answer_error(self, error: ProxyError) -> None:
        """Send a problem answer; break off instead where a 4xx would deny what was sent."""
        event, caller = self._event, self.caller
        event.status, event.code = error.status, error.code
        if not event.request_id:
            self._take_request_id(None)
        if error.code == "bad_request" or not caller.content.is_eof():
            caller.keep_alive = False  # what follows on the connection may not be a request
        if error.sent and error.status < 500:  # noqa: PLR2004 - the 4xx class
            caller.break_off()
            return
        lines, route = [self._id_line, *self._cors], event.route
        if error.code == "caller_unknown":
            lines.append(identity.CHALLENGE)
        if self._context.callers is not None and event.identity is None:
            route = ""  # which ones there are is for callers that are known
        try:
            caller.answer_error(error, lines, route=route, request_id=event.request_id)
        except ConnectionError:
            caller.keep_alive = False

    def report(self) -> None:
        """Tell the observer what happened; its failure is nobody's but its own."""
        event, sending, context = self._event, self._sending, self._context
        event.bytes_in = (self._tunnel or self._body).received
        event.bytes_out = self.caller.sent
        if sending is not None:
            event.attempts = sending.attempts
            event.upstream = sending.took
        event.duration = context.clock.now() - self._began
        try:
            context.observer.exchanged(event)
        except Exception:
            logger.exception("request %s could not be reported", event.request_id)


def _parse(method: str, raw: str) -> tuple[Target | None, ProxyError | None]:
    """Read the target; a refusal is kept, for the guard speaks first."""
    if method == "CONNECT":  # its target is never a path (RFC 9112, 3.2.3), nor has it a body
        return None, bad_request("There is no tunnel to be had by CONNECT.")
    try:
        return targets.parse(raw), None
    except ProxyError as refusal:
        return None, refusal
