"""Sending one request upstream, and the few cases in which it is sent again.

Nothing is sent twice except:
- after a kept-alive connection closed before any byte of an answer: GET, HEAD and OPTIONS;
- after an answer that refused the credential (`Credential.refusals`), with a renewed one.
Both need the whole body at hand. A financial call is sent again in the second case only, where the
vendor says that it was turned away at the door.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from proxy.body import NO_BODY
from proxy.errors import ProxyError
from proxy.upstream.pool import IDLE_AT_MOST, IDLE_AT_MOST_UNSAFE

if TYPE_CHECKING:
    from proxy.body import RequestBody
    from proxy.credentials.base import Authorization, Outgoing
    from proxy.headers import Fields
    from proxy.route import Route
    from proxy.scrub import Needle
    from proxy.upstream.codec import Head
    from proxy.upstream.connection import Connection

logger = logging.getLogger(__name__)

# Methods that RFC 9110, 9.2.1 calls safe, less TRACE: sending one twice does no harm.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSAL_AT_MOST: Final = 64 * 1024  # bytes of a refusing answer that a credential may read


class Reply:
    """An upstream's answer: its head, the body pieces that have come, and where more come from.

    `connection` is None once the whole body is in `pieces`. `needles` are what it must not echo.
    """

    __slots__ = ("connection", "head", "needles", "pieces")

    def __init__(
        self,
        head: Head,
        pieces: list[bytes],
        connection: Connection | None,
        needles: tuple[Needle, ...] = (),
    ) -> None:
        self.head = head
        self.pieces = pieces
        self.connection = connection
        self.needles = needles


class Sending:
    """One request on its way to the upstream.

    `target` is the request target as it is sent, `fields` has the lines that go with it. `attempts`
    counts how often the request was begun, `took` is the time in seconds to the last answer's head.
    `upgrade` is the protocol to switch to, if the request asks for one.
    """

    __slots__ = (
        "_body",
        "_fields",
        "_outgoing",
        "_target",
        "_uploading",
        "attempts",
        "route",
        "took",
        "upgrade",
    )

    def __init__(
        self,
        route: Route,
        outgoing: Outgoing,
        target: bytes,
        fields: Fields,
        body: RequestBody,
    ) -> None:
        self.route = route
        self._outgoing = outgoing
        self._target = target
        self._fields = fields
        self._body = body
        self._uploading: asyncio.Task[None] | None = None
        self.upgrade: bytes | None = None
        self.attempts = 0
        self.took: float | None = None

    async def reply(self) -> Reply:
        """Authorise and send; once more where the credential was refused and can be renewed."""
        credential, outgoing = self.route.credential, self._outgoing
        authorization = await credential.authorise(outgoing)
        first, used = await self._attempt(authorization)
        if first.head.status not in credential.refusals:
            return first
        first, answer = await self._hold(first)
        try:
            renewed = await credential.again(outgoing, used, answer)
        except ProxyError:
            return first  # nothing better to send: the refusal is the answer
        except BaseException:
            self.finish(first)
            raise
        if renewed is None or self._body.whole is None or first.connection is not None:
            return first
        try:
            return (await self._attempt(renewed))[0]
        except ProxyError as error:
            if error.sent:
                raise
            return first

    def relocate(self, location: bytes) -> bytes:
        """Turn a Location that leads back to the upstream into one that leads back here."""
        return self.route.relocate(location, self._fields.read["host"], self._target)

    def finish(self, reply: Reply) -> None:
        """Give back the reply's connection, read to its end or not."""
        if reply.connection is not None:
            self._release(reply.connection)

    def _release(self, connection: Connection) -> None:
        """Give a connection back. Nothing is awaited here: a cancellation must not come between."""
        if self._uploading is not None:
            self._uploading.cancel()
            self._uploading = None
        self.route.pool.release(connection)

    async def _attempt(self, authorization: Authorization) -> tuple[Reply, Authorization]:
        """Send on a connection that may have been used before; on a new one if that had closed.

        Returns what has come up to the answer's head, or to its end if that has come with it.
        What is attached is made anew whenever time has passed since: a token may have expired, and
        Eko takes no stamp twice. The one that was used is returned too.
        """
        pool, idle = self.route.pool, IDLE_AT_MOST_UNSAFE
        if self._outgoing.method in _SAFE:
            idle = IDLE_AT_MOST
        connection = pool.take(pool.now() - idle)
        while True:
            is_new = connection is None
            if connection is None:
                connection = await pool.acquire()
                authorization = await self._authorise_again(connection)
            try:
                began = self._begin(connection, authorization)
                while (head := connection.reader.head) is None:
                    await connection.news()
            except BaseException as error:
                self._release(connection)
                if is_new or not self._may_repeat(connection, error):
                    raise
                connection = None
            else:
                connection.deadline = math.inf
                self.took = pool.now() - began
                reply = self._received(connection, head)
                if self.route.scrub:
                    reply.needles = authorization.needles
                return reply, authorization

    async def _authorise_again(self, connection: Connection) -> Authorization:
        try:
            return await self.route.credential.authorise(self._outgoing)
        except BaseException:
            self.route.pool.release(connection)
            raise

    def _received(self, connection: Connection, head: Head) -> Reply:
        """Take what has come; the connection goes back at once if that is all there is."""
        pieces = connection.take()
        if not connection.reader.complete or not connection.wrote_all:
            return Reply(head, pieces, connection)
        self.route.pool.release(connection)
        return Reply(head, pieces, None)

    def _may_repeat(self, connection: Connection, error: BaseException) -> bool:
        return (
            isinstance(error, ProxyError)
            and error.code == "upstream_closed"
            and connection.reader.untouched
            and self._body.whole is not None
            and self._outgoing.method in _SAFE
            and not self.is_financial
        )

    @property
    def is_financial(self) -> bool:
        """Tell whether the request moves money."""
        return self.route.credential.is_financial(self._outgoing.method, self._outgoing.path)

    def _begin(self, connection: Connection, authorization: Authorization) -> float:
        """Write the request; a body that is still coming is sent by a task of its own.

        Returns the time at which it began.
        """
        self.attempts += 1
        now = self.route.pool.now()
        connection.begin(self._outgoing.method, self.upgrade)
        parts, body = self._head(authorization), self._body
        if body is not NO_BODY:
            whole = body.whole
            if whole is None:
                connection.write(b"".join(parts))
                self._uploading = asyncio.create_task(self._upload(connection), name="upload")
                return now
            if body.length is None:
                whole = _chunk(whole) + b"0\r\n\r\n"
            parts.append(whole)
        connection.write(b"".join(parts))
        connection.wrote_all = True
        connection.deadline = now + self.route.timeout.response
        return now

    async def _upload(self, connection: Connection) -> None:
        """Send the body as it comes, no faster than the upstream takes it."""
        body, timeout = self._body, self.route.timeout
        try:
            while piece := await body.next():
                connection.write(_chunk(piece) if body.length is None else piece)
                await connection.drain(timeout.idle)
            if body.length is None:
                connection.write(b"0\r\n\r\n")
        except ProxyError as error:
            connection.fail(error)
        except ConnectionError:
            connection.abort()  # the caller has gone: what was sent must not look whole
        except Exception as error:
            logger.exception("an upload failed unexpectedly")
            what = f"An error of the proxy's own ({type(error).__name__}); its log has more."
            connection.fail(ProxyError("internal_error", what))
        else:
            connection.wrote_all = True
            if connection.reader.head is None:
                connection.deadline = self.route.pool.now() + timeout.response

    def _head(self, authorization: Authorization) -> list[bytes]:
        body = self._body
        parts = [
            b"%b %b HTTP/1.1\r\n" % (self._outgoing.method.encode(), self._target),
            self.route.host_line,
            *self._fields.lines,
            authorization.lines,
        ]
        if body is not NO_BODY:
            if body.length is None:
                parts.append(b"Transfer-Encoding: chunked\r\n")
            usual = self.route.credential.content_type
            if usual is not None and body.length != 0 and "content-type" not in self._fields.read:
                parts.append(b"Content-Type: %b\r\n" % usual)
        parts.append(b"\r\n")
        return parts

    async def _hold(self, reply: Reply) -> tuple[Reply, bytes]:
        """Read a refusal's body, up to 64 KiB, and keep it: it may still be the answer."""
        connection, held = reply.connection, list(reply.pieces)
        while connection is not None and sum(map(len, held)) < _REFUSAL_AT_MOST:
            if connection.reader.complete and not connection.reader.size:
                if not connection.wrote_all:
                    break
                self.route.pool.release(connection)
                connection = None
            else:
                await self._next(connection, held)
        return Reply(reply.head, held, connection, reply.needles), b"".join(held)[:_REFUSAL_AT_MOST]

    async def _next(self, connection: Connection, held: list[bytes]) -> None:
        try:
            await connection.more(self.route.timeout.idle)
        except BaseException:
            self._release(connection)
            raise
        held += connection.take()


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
