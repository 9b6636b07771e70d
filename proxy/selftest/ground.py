"""Where attacks take place: vendors that record, the program in front of them, and callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from proxy import sandbox
from proxy.selftest import plays
from proxy.selftest.case import NotTriedError, expect, get
from proxy.selftest.program import COMMAND, Program
from proxy.selftest.recorder import Recorder, asked_for, of_login
from proxy.selftest.wire import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from proxy.selftest.recorder import Arrived
    from proxy.selftest.wire import Answer, Line

CONNECTIONS: Final = 300  # `limits.connections` of the program under attack
HEADER_TIMEOUT: Final = 1  # seconds, its `limits.header_timeout`
MAX_BODY: Final = 1024  # bytes, the route `small`'s
PLACES: Final = (None, "/dev/shm")  # noqa: S108 - the folder there has a name of its own, mode 0700
_ORDINARY: Final = "/ordinary"
_VENDOR_CALLS: Final = {
    "eka": "/dr/v1/patient/1",
    "eko": "/ekoapi/v3/customer/payment/bbps/operators?initiator_id="
    + sandbox.SANDBOX_INITIATOR_ID,
    "admin": "/livez",
}


class Watch:
    """What has reached the recorder since this was made, ordinary calls left out."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._from = len(recorder.journal)

    def arrived(self) -> list[Arrived]:
        """List it."""
        new = self._recorder.journal[self._from :]
        return [each for each in new if each.target != _ORDINARY]


class Ground:
    """Async context manager; `command` starts the program.

    `recorder` is the upstream of all routes but `eka` and `eko`, which have the sandbox's
    stand-ins; `door` is a token endpoint of many kinds; `trap` is where nothing may ever go.
    `canaries` are the secrets that the program was given, by what they are.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._stack = AsyncExitStack()
        names = (
            "long-lived token",
            "client id",
            "client secret",
            "login's token",
            "lasting token",
            "caller's key",
        )
        self.canaries = {name: f"canary-{secrets.token_hex(12)}" for name in names}
        self.flood = plays.Flood()
        self.trap = Recorder({"ok": plays.answer()}, asked_for)
        self.stand_ins = sandbox.StandIns()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = await asyncio.to_thread(_temporary_folder)
            stack.push_async_callback(asyncio.to_thread, folder.cleanup)
            self.folder = Path(folder.name)
            await stack.enter_async_context(self.trap)
            known = {
                "good": self.canaries["login's token"],
                "life-huge": self.canaries["lasting token"],
            }
            self.logins = plays.of_a_login(self.trap.url, known)
            vendor = plays.of_a_vendor(self.trap.url, self.flood)
            self.recorder = await stack.enter_async_context(Recorder(vendor, asked_for))
            self.door = await stack.enter_async_context(Recorder(self.logins, of_login))
            await stack.enter_async_context(self.stand_ins)
            environ = await asyncio.to_thread(self._write_files)
            program = Program(self._command, self.folder, environ)
            self.program = await stack.enter_async_context(program)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # What callers do.

    def address(self, route: str) -> str | tuple[str, int]:
        """Tell where a route, or `admin`, is to be reached."""
        ready = self.program.ready
        url = ready["admin"] if route == "admin" else ready["listeners"][route]
        if url.startswith("unix:"):
            return str(url).removeprefix("unix:")
        parts = urlsplit(url)
        return str(parts.hostname), int(parts.port or 0)

    def line(self, route: str) -> AbstractAsyncContextManager[Line]:
        """Connect to a route, or to `admin`."""
        return connect(self.address(route))

    async def call(self, route: str, raw: bytes) -> Answer:
        """Send a request on a connection of its own, and read its answer."""
        async with self.line(route) as line:
            await line.send(raw)
            return await line.answer(raw.partition(b" ")[0].decode("latin-1"))

    async def ordinary(self, route: str) -> None:
        """Make a call that has to be served well."""
        target = _VENDOR_CALLS.get(route, _ORDINARY)
        before = len(self.recorder.journal)
        answer = await self.call(route, get(target))
        expect(answer.status == 200, f"an ordinary call was answered {answer.seen}")  # noqa: PLR2004
        if target == _ORDINARY:
            new = [each.target for each in self.recorder.journal[before:]]
            expect(_ORDINARY in new, "an ordinary call did not reach the upstream")

    def watch(self) -> Watch:
        """Look at what reaches the recorder from now on."""
        return Watch(self.recorder)

    async def log_after(self, route: str = "plain") -> bytes:
        """Return all output, once what happened so far must be in it."""
        mark = f"mark-{secrets.token_hex(8)}"
        await self.call(route, get(_VENDOR_CALLS.get(route, _ORDINARY), f"X-Request-Id: {mark}"))
        await self.program.said(mark.encode())
        return bytes(self.program.output)

    @contextlib.asynccontextmanager
    async def with_keys(self) -> AsyncIterator[Program]:
        """Run the program a second time, with routes `open` and `private` and callers' keys."""
        folder = self.folder / "keys"
        await asyncio.to_thread(folder.mkdir, exist_ok=True)
        plain = {"listen": "127.0.0.1:0", "upstream": self.recorder.url, "credential": "none"}
        raw = {
            "routes": {"open": plain, "private": plain | {"callers": ["other"]}},
            "access": {"keys": {"app": self.canaries["caller's key"], "other": "x" * 20}},
            "admin": {"listen": "127.0.0.1:0"},
        }
        await asyncio.to_thread(_write, folder / "config.yaml", json.dumps(raw))
        async with Program(self._command, folder, {}) as program:
            yield program

    # What the program is given.

    def _write_files(self) -> dict[str, str]:
        """Write its configuration and secrets; return its environment."""
        secret = self.folder / "client_secret"
        _write(secret, self.canaries["client secret"] + "\n")
        _write(self.folder / "config.yaml", json.dumps(self._configuration(secret)))
        # What must not be picked up from the environment.
        _write(self.folder / "netrc", "default login canary password canary\n")
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        return dict.fromkeys(names, self.trap.url) | {
            "no_proxy": "",
            "NO_PROXY": "",
            "NETRC": str(self.folder / "netrc"),
            "SELFTEST_TOKEN": self.canaries["long-lived token"],
        }

    def _configuration(self, secret: Path) -> dict[str, Any]:
        here, door = self.recorder.url, self.door.url
        plain: dict[str, Any] = {"listen": "127.0.0.1:0", "upstream": here, "credential": "none"}
        eka = {"listen": "127.0.0.1:0", "upstream": self.stand_ins.eka_url, "credential": "eka"}
        eko = {"listen": "127.0.0.1:0", "upstream": self.stand_ins.eko_url, "credential": "eko"}
        hasty = {"connect": 1, "response": 0.5, "idle": 0.5}
        routes = {
            "plain": plain,
            "token": plain | {"credential": "static"},
            "narrow": plain | {"allow": [f"GET {_ORDINARY}", "GET /open/**"]},
            "small": plain | {"max_body": f"{MAX_BODY}B"},
            "hasty": plain | {"timeout": hasty},
            "socket": plain | {"listen": f"unix:{self.folder}/ekeko.sock"},
            "eka": eka,
            "eko": eko,
        }
        client = {
            "kind": "eka",
            "client_id": self.canaries["client id"],
            "client_secret": {"file": str(secret)},
            "origins": [here, door],
        }
        credentials: dict[str, Any] = {
            "static": {"kind": "bearer", "token": {"env": "SELFTEST_TOKEN"}, "origins": [here]},
            **self.stand_ins.credentials(),
        }
        for name in self.logins:
            timeout = {"total": 1}
            routes[f"login-{name}"] = plain | {"credential": f"login-{name}", "timeout": timeout}
            credentials[f"login-{name}"] = client | {"login_url": f"{door}/{name}"}
        return {
            "routes": routes,
            "credentials": credentials,
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"level": "debug"},
            "limits": {"connections": CONNECTIONS, "header_timeout": HEADER_TIMEOUT},
        }


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder; in a container whose files cannot be changed, in its shared memory."""
    for place in PLACES:
        with contextlib.suppress(OSError):
            return tempfile.TemporaryDirectory(prefix="ekeko-", dir=place)
    raise NotTriedError("there is no folder to write to: let /tmp be a writable one (tmpfs)")
