"""A real browser, the page of a stranger in it, and what came of that.

The browser reaches each listener by a `Door`, which passes bytes on and notes what was asked for:
so that an attack which never left the browser does not count as repelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from tests.browser.attacks import ATTACKS, HELPERS
from tests.support import ScriptedUpstream, answer, plain_proxy, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.support import UpstreamWire

LOOPBACK: Final = "127.0.0.1"
FOREIGN: Final = "evil.example"  # resolves to loopback, as a stranger's name may
INTERNAL: Final = "ekeko.example"  # as well: a name that a test lists in access.hosts
SECRET: Final = "what-the-vendor-answers"
_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE: Final = 45  # seconds for a page to try everything; it takes two
_FLAGS: Final = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-breakpad --disable-component-update --disable-sync "
    "--disable-popup-blocking --no-proxy-server"
)
_REQUEST_LINE = re.compile(rb"(?:GET|HEAD|POST|DELETE|OPTIONS) (/\S*) HTTP/1\.1\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 [0-9]{3} ")


class Call(NamedTuple):
    """One attack on one target: `door` is the listener's, `host` the name to call it by."""

    attack: str
    target: str
    door: str = "plain"
    host: str = LOOPBACK


@dataclass
class Outcome:
    """What came of a page's calls, by target."""

    read: dict[str, str] = field(default_factory=dict)  # by the page
    tried: set[str] = field(default_factory=set)  # came to a listener
    arrived: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # upstream
    stopped: bool = False  # by POST /quit
    bodies: set[bytes] = field(default_factory=set)  # that arrived upstream


class Connection:
    """What passed through a door on one connection."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self.ended = False

    @property
    def targets(self) -> list[str]:
        """Every target that was asked for."""
        return [target.decode() for target in _REQUEST_LINE.findall(self.sent)]

    @property
    def is_settled(self) -> bool:
        """Whether no answer is still to come."""
        return self.ended or len(_STATUS_LINE.findall(self.received)) >= len(self.targets)


class Door:
    """Passes connections on to a listener; those whose first request is for /page, to the page."""

    def __init__(self, listener: str, stranger: Stranger) -> None:
        self._listener = listener
        self._stranger = stranger
        self._connections: list[Connection] = []
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Accept connections meanwhile."""
        server = await asyncio.start_server(self._serve, LOOPBACK)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def targets(self) -> set[str]:
        """Every target that was asked for, without what a form adds."""
        found = (target for each in self._connections for target in each.targets)
        return {_plain(target) for target in found}

    @property
    def is_settled(self) -> bool:
        """Whether no answer is still to come."""
        return all(each.is_settled for each in self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        connection = Connection()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), _ended(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            is_page = b" /page" in head.partition(b"\r\n")[0]
            to = urlsplit(self._stranger.url if is_page else self._listener)
            onward_reader, onward = await asyncio.open_connection(to.hostname, to.port)
            if not is_page:
                self._connections.append(connection)
            connection.sent += head
            with _ended(onward):
                onward.write(head)
                await asyncio.gather(
                    _pass_on(reader, onward, connection.sent),
                    _pass_on(onward_reader, writer, connection.received),
                )
        connection.ended = True


@contextlib.contextmanager
def _ended(writer: asyncio.StreamWriter) -> Iterator[None]:
    """End a connection, however it goes."""
    try:
        yield
    finally:
        writer.transport.abort()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
) -> None:
    """Pass on what comes, and its end."""
    while piece := await reader.read(65536):
        record += piece
        writer.write(piece)
    writer.close()


def _plain(target: str) -> str:
    """Take off what a form without POST adds."""
    return target.partition("?%7B")[0]


class Stranger:
    """The server of a page that makes calls, and tells here what it could read."""

    def __init__(self) -> None:
        self.url = ""
        self.script = ""
        self.report: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Serve meanwhile."""
        app = web.Application()
        app.router.add_get("/page", self._page)
        app.router.add_get("/script", self._script)
        app.router.add_get("/reporting", self._reporting)
        app.router.add_route("*", "/redirect", self._redirect)
        app.router.add_post("/report", self._report)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, 0).start()
        self.url = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        page = f'<!doctype html><title>page</title><body><script src="{self.url}/script"></script>'
        answer = web.Response(text=page, content_type="text/html")
        answer.force_close()  # what comes next on the connection is for the listener
        return answer

    async def _script(self, _: web.Request) -> web.Response:
        return web.Response(text=self.script, content_type="text/javascript")

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": request.query["to"]})

    async def _reporting(self, request: web.Request) -> web.Response:
        """Answer with a page that violates its own policy, which the browser reports."""
        policy = f"default-src 'none'; report-uri {request.query['to']}"
        return web.Response(
            text='<img src="/nothing">',
            content_type="text/html",
            headers={"Content-Security-Policy": policy},
        )

    async def _report(self, request: web.Request) -> web.Response:
        self.report.set_result(json.loads(await request.text()))
        return web.Response()


def _script(stranger: str, calls: Iterable[tuple[str, str, str]]) -> str:
    """Write the page's script, for calls of (attack, target, URL)."""
    rounds: list[list[tuple[str, str, str]]] = [[], []]
    for call in calls:
        rounds["window" in call[0]].append(call)  # a page behind a window loads no video
    attacks = "".join(f"{json.dumps(k)}: async (url) => {{ {v} }},\n" for k, v in ATTACKS.items())
    return f"""
        const STRANGER = {json.dumps(stranger)};
        {HELPERS}
        const attacks = {{ {attacks} }};
        const read = {{}};
        const late = () => new Promise((done) => setTimeout(done, {_PATIENCE * 500}));
        const make_call = async ([attack, target, url]) => {{
            try {{ read[target] = await Promise.race([attacks[attack](url), late()]) ?? ""; }}
            catch (error) {{ read[target] = `${{error}}`; }}
        }};
        (async () => {{
            for (const calls of {json.dumps(rounds)}) await Promise.all(calls.map(make_call));
            await fetch(`${{STRANGER}}/report`, {{...blindPost, body: JSON.stringify(read)}});
        }})();
    """


@asynccontextmanager
async def _browser(program: str, url: str, profile: Path) -> AsyncIterator[None]:
    """Have a browser open a page meanwhile."""
    with (profile / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *_FLAGS.split(),
            f"--host-resolver-rules=MAP {FOREIGN} {LOOPBACK},MAP {INTERNAL} {LOOPBACK}",
            f"--user-data-dir={profile}",
            url,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def find_browser() -> str:
    """Return the browser's program; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("chromium is not installed")
    return program


async def besiege(
    program: str,
    profile: Path,
    calls: Sequence[Call],
    *,
    page: str = LOOPBACK,
    rebound: str | None = None,
    trusted: bool = False,
    **access: Any,
) -> Outcome:
    """Have a page make calls, in front of a proxy with these `access` settings.

    `page` is the host that it comes from. With `rebound` its name then resolves to that door's
    listener, which is of the page's own origin so. A `trusted` page's origin is listed.
    """
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream(_answer_all))
        stranger = await stack.enter_async_context(Stranger().serve())
        if trusted:
            access["origins"] = [stranger.url]
        settings = {"access": access, "admin": {"listen": f"{LOOPBACK}:0"}}
        proxy = await stack.enter_async_context(plain_proxy(upstream.url, settings))
        doors = {
            name: await stack.enter_async_context(Door(url, stranger).open())
            for name, url in (("plain", proxy.plain), ("admin", proxy.admin))
        }
        urls = [f"http://{call.host}:{doors[call.door].port}{call.target}" for call in calls]
        stranger.script = _script(
            stranger.url,
            [(call.attack, call.target, url) for call, url in zip(calls, urls, strict=True)],
        )
        port = doors[rebound].port if rebound else urlsplit(stranger.url).port
        async with _browser(program, f"http://{page}:{port}/page", profile):
            try:
                read = await asyncio.wait_for(stranger.report, _PATIENCE)
            except TimeoutError:
                pytest.fail((profile / "output").read_text(errors="replace")[-2000:])
            await until(lambda: all(call.target in doors[call.door].targets for call in calls))
            await until(lambda: all(door.is_settled for door in doors.values()))
        stopped = proxy.app._stopping.is_set()
    outcome = Outcome(read, stopped=stopped)
    outcome.tried = set().union(*(door.targets for door in doors.values()))
    outcome.bodies = {request.body for request in upstream.requests}
    for request in upstream.requests:
        outcome.arrived[_plain(request.target)].add(request.method)
    return outcome


async def _answer_all(wire: UpstreamWire) -> None:
    with contextlib.suppress(TimeoutError):  # a kept connection that nothing more comes on
        while True:
            await wire.request()
            await wire.send(answer(SECRET.encode(), "Content-Type: text/plain"))
