"""What tests share: a clock that only a test moves, whole proxies, and peers that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from proxy import config
from proxy.app import App
from proxy.cli.sandbox import configuration
from proxy.clock import SystemClock
from proxy.config.settings import Settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from proxy.clock import Clock
    from proxy.route import Route
    from proxy.sandbox import StandIns


# A bill payment at Eko, and what says that it is JSON.
JSON = ("Content-Type", "application/json")
PAYBILL = "/ekoapi/v2/billpayments/paybill"
PAYMENT = b'{"utility_acc_no": "151627591", "amount": 50.0, "user_code": "20810200"}'


class ManualClock:
    """Time stands still until `advance`, which wakes those who sleep in the order they would."""

    def __init__(self, *, wall_ms: int = 1_700_000_000_000) -> None:
        self._now = 1000.0
        self._wall_ms = wall_ms
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return self._wall_ms

    async def sleep(self, seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), done))
        await done

    @property
    def sleepers(self) -> int:
        """How many are asleep."""
        return sum(not done.done() for *_, done in self._sleepers)

    def jump_wall(self, milliseconds: int) -> None:
        """Set the wall clock forward or back, as an operator or NTP would."""
        self._wall_ms += milliseconds

    async def advance(self, seconds: float) -> None:
        """Let time pass, and give those who wake a chance to run."""
        until = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, done = heapq.heappop(self._sleepers)
            self._move(at)
            if not done.done():
                done.set_result(None)
            await settle()
        self._move(until)
        await settle()

    def suspend(self, seconds: float) -> None:
        """Let time pass with nobody awake, as on a laptop that sleeps."""
        self._move(self._now + seconds)

    def _move(self, to: float) -> None:
        self._wall_ms += round((to - self._now) * 1000)
        self._now = to


async def settle(rounds: int = 20) -> None:
    """Let everything that can run now run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


PATIENCE = 10.0  # seconds after which a test that waits in vain fails; none lasts that long


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


# Whole proxies.


@dataclass
class Proxy:
    """A proxy that runs; `raw` is its configuration."""

    app: App
    raw: dict[str, Any]
    written: list[str] = field(default_factory=list)

    def url(self, route: str) -> str:
        """Where a route listens."""
        url: str = self.app.addresses()["listeners"][route]
        return url

    @property
    def plain(self) -> str:
        return self.url("plain")

    @property
    def admin(self) -> str:
        url: str = self.app.addresses()["admin"]
        return url

    def route(self, name: str) -> Route:
        """Look at a route from inside."""
        return self.app._current.routes[name]

    def let_deadlines_pass(self) -> None:
        """Have every route act as it would in an hour."""
        self.app._current.sweep(self.app._clock.now() + 3600)

    async def reload(self, *changes: dict[str, Any]) -> None:
        """Go on with a changed configuration."""
        raw = self.raw
        for change in changes:
            raw = merged(raw, change)
        await self.app.reload(await _settings(raw))
        self.raw = raw

    def lines(self) -> list[dict[str, Any]]:
        """The access log so far, without the line that says ready."""
        self.app._log.flush()
        lines = [json.loads(line) for line in "".join(self.written).splitlines()]
        return [line for line in lines if "event" not in line]


@dataclass(kw_only=True)
class Running(Proxy):
    """A proxy that runs in front of stand-ins."""

    stand_ins: StandIns

    @property
    def eka(self) -> str:
        return self.url("eka")

    @property
    def eko(self) -> str:
        return self.url("eko")


@asynccontextmanager
async def proxy_in_front(
    stand_ins: StandIns, *changes: dict[str, Any], clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Run a proxy on free ports; `changes` are merged into the sandbox's configuration, deeply."""
    raw = configuration(stand_ins, {"eka": 0, "eko": 0, "admin": 0})
    for change in changes:
        raw = merged(raw, change)
    async with _serving(raw, clock) as (app, written):
        yield Running(app, raw, written, stand_ins=stand_ins)


@asynccontextmanager
async def plain_proxy(
    upstream: str, *changes: dict[str, Any], clock: Clock | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy with one route, `plain`, that attaches nothing."""
    raw: dict[str, Any] = {
        "routes": {"plain": {"listen": "127.0.0.1:0", "upstream": upstream, "credential": "none"}},
        "admin": {"listen": None},
    }
    for change in changes:
        raw = merged(raw, change)
    async with _serving(raw, clock) as (app, written):
        yield Proxy(app, raw, written)


@asynccontextmanager
async def _serving(
    raw: dict[str, Any], clock: Clock | None
) -> AsyncIterator[tuple[App, list[str]]]:
    written: list[str] = []
    app = App(await _settings(raw), clock=clock or SystemClock(), write=written.append)
    await app.start()
    try:
        yield app, written
    finally:
        app.stop()
        ending = asyncio.create_task(app.run())
        while isinstance(clock, ManualClock) and not ending.done():
            await clock.advance(0.02)
            await asyncio.sleep(0)
        await ending


async def _settings(raw: dict[str, Any]) -> Settings:
    settings = Settings.model_validate(raw)
    await asyncio.to_thread(config.resolve, settings)
    return settings


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings deeply; anything else is replaced, and None removes a key."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


# Callers and upstreams that speak bytes.


class Broken(Exception):  # noqa: N818 - it is what a test expects, not a mistake
    """The peer ended the connection before the end of a message."""


class Message(NamedTuple):
    """A request or an answer, as it stood on the wire; `body` without its chunked framing."""

    start: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The one value of a field, None if there is no such field."""
        values = self.all(name)
        assert len(values) < 2, f"{name} stands there {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One end of a connection; `received` is every byte that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()

    async def send(self, *pieces: bytes) -> None:
        """Send, and wait until the peer has taken nearly all."""
        if self.writer.is_closing():
            raise ConnectionResetError  # as asyncio's `drain`; uvloop's `write` has its own error
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def some(self, at_most: int = 65536) -> bytes:
        """Read what comes next; nothing at the end."""
        async with asyncio.timeout(PATIENCE):
            piece = await self.reader.read(at_most)
        self.received += piece
        return piece

    async def rest(self) -> bytes:
        """Read to the end of the stream, be it orderly or not."""
        start = len(self.received)
        with contextlib.suppress(ConnectionError):
            while await self.some():
                pass
        return bytes(self.received[start:])

    async def rest_of(self, end: bytes) -> bytes:
        """Read up to and with a mark."""
        return await self._upto(end)

    async def head(self) -> Message:
        """Read a message's start line and fields."""
        head = await self._upto(b"\r\n\r\n")
        start, *lines = head[:-4].decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Message(start, [(name, value) for name, value in pairs])

    async def body(self, head: Message, *, to_end: bool = False) -> Message:
        """Read the body that a head announces; `to_end` if an end of stream may end it."""
        length = head.get("Content-Length")
        if head.get("Transfer-Encoding") is not None:
            return head._replace(body=await self._chunks())
        if length is not None:
            return head._replace(body=await self._exactly(int(length)))
        return head._replace(body=await self.rest() if to_end else b"")

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._upto(b"\r\n"), 16):
            body += (await self._exactly(size + 2))[:-2]
        while await self._upto(b"\r\n") != b"\r\n":
            pass
        return body

    async def _upto(self, end: bytes) -> bytes:
        return await self._read(self.reader.readuntil(end))

    async def _exactly(self, size: int) -> bytes:
        return await self._read(self.reader.readexactly(size))

    async def _read(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                data = await reading
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.received += getattr(error, "partial", b"")
            raise Broken(bytes(self.received[-200:])) from None
        self.received += data
        return data

    def drop(self) -> None:
        """End the connection at once, in whatever state it is."""
        with contextlib.suppress(AttributeError):  # asyncio's, where it has ended already
            self.writer.transport.abort()

    def close(self) -> None:
        """End the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawClient(Wire):
    """A caller that says exactly what a test tells it to."""

    async def answer(self, method: str = "GET") -> Message:
        """Read one final answer, or raise Broken."""
        head = await self.head()
        while head.status < 200:
            head = await self.head()
        if method == "HEAD" or head.status in (204, 304):
            return head
        return await self.body(head, to_end=True)

    async def ask(
        self,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Message:
        """Send a request that is in order, and read its answer."""
        await self.send(request(method, target, fields, body))
        return await self.answer(method)


def request(
    method: str, target: str, fields: Iterable[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """Write a request that is in order; `Host` is localhost."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def raw_client(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
    """Connect to a listener: `http[s]://HOST:PORT` or `unix:PATH`."""
    if url.startswith("unix:"):
        streams = await asyncio.open_unix_connection(url.removeprefix("unix:"))
    else:
        parts = urlsplit(url)
        name = None if tls is None else "localhost"
        streams = await asyncio.open_connection(
            parts.hostname, parts.port, ssl=tls, server_hostname=name
        )
    client = RawClient(*streams)
    try:
        yield client
    finally:
        client.drop()


async def ask(
    url: str,
    method: str,
    target: str,
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    tls: ssl.SSLContext | None = None,
) -> Message:
    """Send one request on a connection of its own."""
    async with raw_client(url, tls) as client:
        return await client.ask(method, target, fields, body)


class UpstreamWire(Wire):
    """A connection that came to a scripted upstream; `lost` once its other end has gone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: list[Message],
    ) -> None:
        super().__init__(reader, writer)
        self.lost = asyncio.Event()
        self._requests = requests

    async def request(self) -> Message:
        """Read one request and record it; Broken if it does not come whole."""
        whole = await self.body(await self.head())
        self._requests.append(whole)
        return whole


class ScriptedUpstream:
    """A server that plays what a test tells it, and records what it got.

    `plays` are for the first connection, the second, and so on; the last is for all further ones.
    A play is a list of answers, each sent after a whole request has come, the connection then
    staying open; or a function of the connection, which is closed when it returns.
    """

    def __init__(self, *plays: Callable[[UpstreamWire], Awaitable[None]] | Sequence[bytes]) -> None:
        self._plays = plays
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: list[UpstreamWire] = []
        self.requests: list[Message] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self.connections:
            wire.drop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        wire = UpstreamWire(reader, writer, self.requests)
        play = self._plays[min(len(self.connections), len(self._plays) - 1)]
        self.connections.append(wire)
        with contextlib.suppress(Broken, ConnectionError, asyncio.CancelledError):
            if callable(play):
                await play(wire)
                wire.close()
                return
            for answer in play:
                await wire.request()
                await wire.send(answer)
            await wire.rest()
        wire.lost.set()


def answer(
    body: bytes = b"",
    *fields: str,
    status: str = "200 OK",
) -> bytes:
    """Write an answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
