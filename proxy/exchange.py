"""One request's way through: guard → route → path → allow → strip → authorise → send → stream.

What came in is never changed; what goes out is built beside it. Failures are ProxyErrors from
wherever they are noticed to `Exchange.run`, which answers them, or breaks the caller's connection
where an answer has begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from typing import TYPE_CHECKING, Final, Protocol

from proxy import cors
from proxy import target as targets
from proxy.body import RequestBody
from proxy.caller import Caller
from proxy.credentials.base import Outgoing
from proxy.errors import ProxyError, bad_request
from proxy.headers import RequestSorter
from proxy.observe import CALLER_CLOSED, Event
from proxy.relay import Relay
from proxy.send import Sending

if TYPE_CHECKING:
    from aiohttp import web

    from proxy.body import Budget
    from proxy.clock import Clock
    from proxy.guard import Guard
    from proxy.headers import Fields
    from proxy.observe import Observer
    from proxy.route import Route
    from proxy.routing import Prefixes
    from proxy.target import Target

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
# More digits are nobody's body, and 2**64 - 1 is what llhttp keeps where there is no length.
_LENGTH = re.compile(rb"[0-9]{1,18}")
_VERSIONS: Final = ((1, 0), (1, 1))
_UNROUTED: Final = RequestSorter()
_CLIENT_CLOSED_REQUEST: Final = 499  # for the log alone; nginx's number for it


class RequestIds:
    """Makes request ids: unique in the process, and very likely everywhere."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._count = 0

    def make(self) -> str:
        """Return the next id."""
        self._count += 1
        return f"{self._prefix}{self._count:012x}"


class Context(Protocol):
    """What an exchange goes by: its listener's rules of the moment, and what all share."""

    guard: Guard
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
        "_code",
        "_context",
        "_cors",
        "_fields",
        "_overdue",
        "_request",
        "_request_id",
        "_route",
        "_sending",
        "_started",
        "_status",
        "_target",
        "_task",
        "caller",
    )

    def __init__(self, context: Context, request: web.BaseRequest) -> None:
        self._context = context
        self._request = request
        self._began = context.clock.now()
        self._started = context.clock.wall_ms()
        self._task = asyncio.current_task()
        self._overdue: ProxyError | None = None
        self.caller = Caller(
            request,
            context.clock.now,
            keep_alive=request.keep_alive and not context.draining,
        )
        self._fields: Fields | None = None
        self._request_id = ""
        self._route: Route | None = None
        self._target: Target | None = None
        self._body: RequestBody | None = None
        self._sending: Sending | None = None
        self._cors: list[bytes] = []
        self._status = 0
        self._code: str | None = None

    async def run(self) -> web.StreamResponse:
        """Serve the request, whatever happens, and tell the observer."""
        try:
            await self._serve()
        except ProxyError as error:
            self._fail(error)
        except (asyncio.CancelledError, ConnectionError):
            if self._overdue is None or self._task is None:
                # The caller has gone: nobody is left to answer.
                self._status = self._status or _CLIENT_CLOSED_REQUEST
                self._code = CALLER_CLOSED
                self.caller.break_off()
                raise
            self._task.uncancel()  # it was `sweep` that cancelled
            self._fail(self._overdue)
        except Exception as error:
            logger.exception("request %s failed unexpectedly", self._request_id)
            self._fail(
                ProxyError(
                    "internal_error",
                    f"An error of the proxy's own ({type(error).__name__}); its log has more.",
                    sent=self._has_begun,
                )
            )
        finally:
            if self._body is not None:
                self._body.forget()
            if self._route is not None:
                self._route.exchanges.discard(self)
            self.report()
        return self.caller.outcome

    def sweep(self, now: float) -> None:
        """End the exchange if it takes too long, or its caller neither sends nor takes anything."""
        route, body = self._route, self._body
        if route is None or self._task is None or self._overdue is not None:
            return
        timeout = route.timeout
        if timeout.total is not None and now > self._began + timeout.total:
            what = f"The exchange took longer than the route's timeout.total, {timeout.total:g} s."
            self._expire(ProxyError("upstream_timeout", what, sent=self._has_begun))
        elif body is not None and now > body.waiting_since + timeout.idle:
            what = f"No more of the request's body came within {timeout.idle:g} s."
            self._expire(ProxyError("bad_request", what, sent=self._has_begun))
        elif now > self.caller.waiting_since + timeout.idle:
            self.caller.break_off()

    def _expire(self, error: ProxyError) -> None:
        self._overdue = error
        if self._task is not None:
            self._task.cancel()

    @property
    def _has_begun(self) -> bool:
        return self._sending is not None and self._sending.attempts > 0

    # Policy.

    async def _serve(self) -> None:
        request, context = self._request, self._context
        target, refusal = _parse(request.raw_path)
        route = self._enter(context.routes.find(target.path) if target else None)
        self._fields = (route.sorter if route else _UNROUTED).sort(request.raw_headers)
        read = self._fields.read
        self._take_request_id(read.get("x-request-id"))
        context.guard.check(read)
        if target is None:
            raise refusal or bad_request("")
        self._target = target
        if "origin" in read and self._answer_preflight(read["origin"]):
            return
        if route is None:
            raise ProxyError("no_route", "No route of this listener has a prefix of this path.")
        await self._forward(route, route.strip(target), self._fields)

    def _enter(self, route: Route | None) -> Route | None:
        self._route = route
        if route is not None:
            route.exchanges.add(self)
        return route

    async def _forward(self, route: Route, target: Target, fields: Fields) -> None:
        method, credential = self._request.method, route.credential
        path = route.base_path + target.path
        answer = credential.local_answer(method, path)
        if answer is not None:
            self._answer_locally(answer)
            return
        if not route.allows(method, target.path):
            raise ProxyError("not_allowed", f"The route '{route.name}' does not allow this call.")
        body = self._body = self._read_framing(route, fields.read)
        signed = await body.read_whole() if credential.needs_body(method, path) else None
        sending = self._sending = Sending(
            route,
            Outgoing(method, path, target.query, fields.read, signed),
            target=(route.base_path + target.raw).encode("utf-8", "surrogateescape"),
            fields=fields,
            body=body,
            request_id=self._request_id,
            clock=self._context.clock,
        )
        reply = await sending.reply()
        self._status = reply.head.status
        relay = Relay(
            route,
            self.caller,
            method=method,
            host=fields.read["host"],
            request_id=self._request_id,
            cors=self._cors,
        )
        await relay.send(reply, sending)

    def _read_framing(self, route: Route, read: dict[str, bytes]) -> RequestBody:
        """Read how the body is framed. aiohttp's parser has refused what is ambiguous."""
        if self._request.version not in _VERSIONS:
            raise bad_request("The request is neither HTTP/1.1 nor HTTP/1.0.")
        announced = read.get("content-length", b"0")
        if not _LENGTH.fullmatch(announced):
            raise bad_request("The Content-Length is not a plausible number of bytes.")
        length: int | None = int(announced)
        if "transfer-encoding" in read:
            if self._request.version < (1, 1):
                raise bad_request("HTTP/1.0 has no Transfer-Encoding.")
            if read["transfer-encoding"].lower() != b"chunked":
                raise bad_request("The only Transfer-Encoding that is understood is 'chunked'.")
            length = None
        invite = None
        if "expect" in read and self._request.version >= (1, 1):  # RFC 9110, 10.1.1
            if read["expect"].lower() != b"100-continue":
                raise bad_request("The only expectation that can be met is 100-continue.")
            invite = self.caller.invite_body
        return RequestBody(
            self._request.content,
            length,
            limit=route.max_body,
            budget=self._context.budget,
            now=self._context.clock.now,
            on_read=invite,
        )

    def _take_request_id(self, given: bytes | None) -> None:
        if given is not None and _REQUEST_ID.fullmatch(given):
            self._request_id = given.decode()
        else:
            self._request_id = self._context.ids.make()

    # The proxy's own answers.

    def _answer_locally(self, body: bytes) -> None:
        self._status = 200
        lines = [
            b"Content-Type: application/json\r\n",
            b"X-Request-Id: %b\r\n" % self._request_id.encode(),
            *self._cors,
        ]
        self.caller.answer(200, lines, body)

    def _answer_preflight(self, origin: bytes) -> bool:
        """Answer a preflight of a listed origin; other requests of its get their fields later."""
        preflight = cors.preflight_lines(self._request.method, self._request.raw_headers)
        self._cors = cors.answer_lines(origin)
        if preflight is None:
            return False
        self._status = 204
        self.caller.answer(204, [*self._cors, *preflight], b"")
        return True

    def _fail(self, error: ProxyError) -> None:
        """Answer an error as far as an answer can still be given."""
        if error.sent and self._sending is not None and self._sending.is_financial:
            error.as_unknown_outcome()
        if self.caller.started:
            self._code = error.code
            self.caller.break_off()
        else:
            self.answer_error(error)

    def answer_error(self, error: ProxyError) -> None:
        """Send a problem answer; break off instead where a 4xx would deny what was sent."""
        self._status, self._code = error.status, error.code
        if not self._request_id:
            self._take_request_id(None)
        caller = self.caller
        if error.code == "bad_request" or not self._request.content.is_eof():
            caller.keep_alive = False  # what follows on the connection may not be a request
        if error.sent and error.status < 500:  # noqa: PLR2004 - the 4xx class
            caller.break_off()
            return
        route = self._route.name if self._route else ""
        try:
            caller.answer_error(error, route=route, request_id=self._request_id, lines=self._cors)
        except ConnectionError:
            caller.keep_alive = False

    def report(self) -> None:
        """Tell the observer what happened; its failure is nobody's but its own."""
        try:
            self._context.observer.exchanged(self._event())
        except Exception:
            logger.exception("request %s could not be reported", self._request_id)

    def _event(self) -> Event:
        route, target, body, sending = self._route, self._target, self._body, self._sending
        return Event(
            started=self._started,
            request_id=self._request_id,
            route=route.name if route else "",
            method=self._request.method,
            path=route.template(target) if route and target else "",
            status=self._status,
            code=self._code,
            duration=self._context.clock.now() - self._began,
            upstream=sending.took if sending else None,
            bytes_in=body.received if body else 0,
            bytes_out=self.caller.sent,
            caller=getattr(self._request.protocol, "caller", ""),
            attempts=sending.attempts if sending else 0,
        )


def _parse(raw: str) -> tuple[Target | None, ProxyError | None]:
    """Read the target; a refusal is kept, for the guard speaks first."""
    try:
        return targets.parse(raw), None
    except ProxyError as refusal:
        return None, refusal
