"""A proxy without sockets: callers and the upstream are transports in memory.

Everything between a caller's bytes and the upstream's is the real thing. It is fast enough to try a
request cut at each of its bytes.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import h11

from proxy.addresses import Listen, parse_origin
from proxy.body import Budget
from proxy.clock import SystemClock
from proxy.credentials.passthrough import Passthrough
from proxy.forward import Forwarder
from proxy.guard import Guard
from proxy.limits import Bounds, Limits
from proxy.listener import Listener
from proxy.observe import Observers
from proxy.route import Route, Timeouts
from proxy.routing import Prefixes
from proxy.upstream.pool import Pool
from tests.support import settle
from tests.upstream.support import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.credentials.base import Credential
    from proxy.upstream.connection import Connection
    from proxy.upstream.dial import Dialer

UPSTREAM = "http://127.0.0.1:4711"


@dataclass
class Asked:
    """A request, as h11 read it; `whole` once its end has come."""

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    whole: bool = False


# The contract, said a second time: what belongs to one connection, and what lies about the way.
_HOP_BY_HOP = re.compile(
    "connection|http2-settings|keep-alive|proxy-(authenticate|authorization|connection)|te|trailer"
    "|transfer-encoding|upgrade|expect|forwarded|x-forwarded-.*|host|x-request-id"
)
_ALIAS = "content-length"


def passed(asked: Asked, owned: frozenset[str] = frozenset()) -> Asked:
    """Say what has to reach the upstream of a request that came to the proxy."""
    nominated = {
        option.strip().lower()
        for name, value in asked.fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    } - {b"content-length"}

    def passes(name: bytes) -> bool:
        lower = name.decode().lower()
        folded = re.sub("[^a-z0-9]", "-", lower)
        return not (
            name.lower() in nominated
            or _HOP_BY_HOP.fullmatch(folded)
            or folded in owned
            or (folded == _ALIAS and lower != _ALIAS)
        )

    fields = [(name, value) for name, value in asked.fields if passes(name)]
    return replace(asked, version=b"1.1", fields=fields)


def compared(asked: Asked, *added: bytes) -> Asked:
    """Leave out of a request that reached the upstream what the proxy has added."""
    left_out = {b"host", b"x-request-id", b"transfer-encoding", b"connection", b"upgrade", *added}
    fields = [(name, value) for name, value in asked.fields if name.lower() not in left_out]
    return replace(asked, fields=fields)


def arrived_as(arrived: Asked, expected: Asked) -> bool:
    """Tell whether this is the request, or as much of it as has arrived."""
    if not arrived.whole and expected.body.startswith(arrived.body):
        arrived = replace(arrived, body=expected.body, whole=expected.whole)
    return compared(arrived) == expected


# RFC 9112 lets a server skip empty lines before a request line (2.2), and see several spaces in one
# as one (3). aiohttp's does, h11 does not.
_START = re.compile(rb"\A[\r\n]*([^ \r\n]+) +([^ \r\n]+) +(?=HTTP/)")


def read_by_h11(data: bytes) -> list[Asked]:
    """Read requests by h11, up to what it refuses."""
    asked: list[Asked] = []
    goes_on = True
    while goes_on:
        server = Server(asked)
        try:
            server.receive(_START.sub(rb"\1 \2 ", data), one=True)
        except h11.RemoteProtocolError:
            break
        data, goes_on = server.left, server.goes_on
    return asked


class Server:
    """Reads requests by h11 into `asked`, and answers each with 200 once it is whole."""

    def __init__(self, asked: list[Asked]) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._all = asked
        self._last = Asked(b"", b"", b"", [])

    @property
    def goes_on(self) -> bool:
        """Tell whether a whole request was read, and another may follow.

        h11 always closes behind HTTP/1.0, which may ask to go on.
        """
        last, options = self._last, b""
        if last.version == b"1.0":
            options = b",".join(
                value for name, value in last.fields if name.lower() == b"connection"
            )
        asks = b"keep-alive" in [option.strip() for option in options.lower().split(b",")]
        return last.whole and (asks or self._connection.our_state is h11.DONE)

    @property
    def left(self) -> bytes:
        """What stands behind it."""
        return bytes(self._connection.trailing_data[0])

    def receive(self, data: bytes, *, one: bool = False) -> bytes:
        """Read; return what there is to answer. RemoteProtocolError for what h11 refuses."""
        connection = self._connection
        connection.receive_data(data)
        answers = b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                fields = event.headers.raw_items()
                self._last = Asked(event.method, event.target, event.http_version, fields)
                self._all.append(self._last)
            elif isinstance(event, h11.Data):
                self._last.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._last.whole = True
                answers += self._answer()
                if one or connection.our_state is not h11.DONE:
                    return answers
                connection.start_next_cycle()
            else:
                return answers

    def _answer(self) -> bytes:
        status = 405 if self._last.method == b"CONNECT" else 200  # h11 would leave HTTP
        head = h11.Response(status_code=status, reason=b"OK", headers=[("Content-Length", "0")])
        return b"".join(self._connection.send(each) or b"" for each in (head, h11.EndOfMessage()))


class UpstreamTransport(Transport):
    """The upstream's end of a connection."""

    def __init__(self, connection: Connection, asked: list[Asked]) -> None:
        self._server = Server(asked)
        super().__init__(connection)

    def write(self, data: Any) -> None:
        answer = self._server.receive(bytes(data))
        if answer:
            asyncio.get_running_loop().call_soon(self.feed, answer)


class CallerTransport(Transport):
    """A caller's end of a connection."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4712) if name == "peername" else default


class Front:
    """One listener with one route; `asked` is what reached the upstream, in its order.

    It stands in for the dialer, too.
    """

    origin = parse_origin(UPSTREAM)
    server_name = None

    def __init__(self, credential: Credential | None = None, **options: Any) -> None:
        self.asked: list[Asked] = []
        clock = SystemClock()
        pool = Pool(cast("Dialer", self), now=clock.now, connect_timeout=5)
        self.route = Route(
            "it",
            upstream=parse_origin(UPSTREAM),
            credential=credential or Passthrough(self.origin),
            pool=pool,
            timeout=Timeouts(5, 5, None),
            **options,
        )
        self._handler = Forwarder(
            Guard(),
            Prefixes([("/", self.route)]),
            callers=None,
            budget=Budget(),
            clock=clock,
            observer=Observers([]),
        )
        listen = Listen("127.0.0.1", 4713)
        limits = Limits(Bounds(), lambda _: None)
        self._listener = Listener(listen, self._handler, limits, None)

    async def open(self, factory: Callable[[], Connection], *, within: float) -> Connection:
        """Stand in for a dialer."""
        del within
        connection = factory()
        UpstreamTransport(connection, self.asked)
        return connection

    async def say(self, pieces: Iterable[bytes]) -> tuple[list[Asked], bytes]:
        """Let a caller say something on a connection of its own, and go when all is done.

        Return what reached the upstream for it, and what it was answered.
        """
        self.asked.clear()
        caller = CallerTransport(self._listener())
        for piece in pieces:
            await settle(2)
            caller.feed(piece)
        await self._rest(caller)
        caller.end(None)
        await settle(4)
        assert self.route.in_flight == 0
        return list(self.asked), bytes(caller.written)

    async def _rest(self, caller: CallerTransport) -> None:
        """Wait until nothing happens any more."""
        same, before = 0, (-1, -1)
        while same < 3:
            await settle(8)
            now = (len(caller.written), sum(len(each.body) for each in self.asked))
            same = same + 1 if now == before else 0
            before = now

    def close(self) -> None:
        """Close the connections upstream."""
        self.route.pool.abort()
