"""The product as a process, with a distinctive secret wherever one can stand, and its upstreams."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy import sandbox
from proxy.selftest import plays
from proxy.selftest.program import COMMAND, Program
from proxy.selftest.recorder import Recorder, asked_for, of_login
from proxy.selftest.wire import connect
from tests import certificates
from tests.canaries.search import found_in

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Sequence

    from proxy.selftest.wire import Answer

_ODD: Final = "\"\\<'%+/&=~>"  # a character of each kind that some form of quoting changes
_CALLERS = ("authorization", "cookie", "patient", "aadhaar", "account", "wrong key", "dummy")
_OWN = (
    *("client id", "client secret", "sharing key", "api key", "user token", "long-lived token"),
    *("developer key", "access key", "caller's key", "access token", "refresh token"),
)
SECRETS: Final = {
    **{name: f"canary{number:02}X7q{_ODD}" for number, name in enumerate(_OWN)},
    # What a URL or a request line cannot hold as it stands.
    "via password": "canary-via-9Zk",
    **{name: f"canary-caller{number}-5Tw" for number, name in enumerate(_CALLERS)},
}
TOKEN, REFRESH = SECRETS["access token"], SECRETS["refresh token"]
PAYBILL: Final = "/ekoapi/v2/billpayments/paybill"


def free_port() -> int:
    """Find a port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Product:
    """One that runs. `seen` gathers all that it tells anyone; `secrets` must not be in there."""

    def __init__(self, folder: Path, program: Program, recorder: Recorder) -> None:
        self.folder = folder
        self.program = program
        self.recorder = recorder
        self.seen: list[tuple[str, bytes]] = []
        self.codes: set[str] = set()
        self.secrets = dict(SECRETS)

    async def ask(self, where: str, raw: bytes) -> Answer:
        """Send a request, and keep what comes back."""
        ready = self.program.ready
        url = ready["admin"] if where == "admin" else ready["listeners"][where]
        async with connect(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
            await line.send(raw)
            answer = await line.answer(raw.partition(b" ")[0].decode("latin-1"))
        head = b"".join(name + b": " + value + b"\n" for name, value in answer.fields)
        self.seen.append((f"the answer to {raw[:40]!r}", head + answer.body))
        if answer.code:
            self.codes.add(answer.code)
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.program.pid, number)

    async def ended(self) -> None:
        """Wait until it has ended, and all that it wrote has come."""
        async with asyncio.timeout(20):
            await asyncio.gather(*self.program._readers)

    def processes(self) -> list[int]:
        """List its processes: all of its session, and those that it started in their own."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if self.program.pid in (int(stat[1]), int(folder.name)):
                found.append(int(folder.name))
        return found

    def look_at_arguments(self) -> None:
        """Keep what any user sees of its processes."""
        for pid in self.processes():
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert shown
            self.seen.append((f"the arguments of process {pid}", shown))

    def look_at_files(self, known: set[Path]) -> None:
        """Keep what it has written to its folder."""
        for path in files_in(self.folder) - known:
            self.seen.append((str(path), path.read_bytes()))

    def found(self) -> list[str]:
        """Tell which secrets were seen, where, and in which form."""
        everything = [*self.seen, ("its output", bytes(self.program.output))]
        return [
            f"{secret}, in {where}"
            for where, text in everything
            for secret in found_in(text, self.secrets)
        ]


@asynccontextmanager
async def product(
    folder: Path,
    *,
    start: Sequence[str] = COMMAND,
    environ: dict[str, str] | None = None,
    **keys: Any,
) -> AsyncIterator[Product]:
    """Run one with all its secrets; `keys` are more of its configuration."""
    async with AsyncExitStack() as stack:
        token = plays.token(TOKEN, refresh_token=REFRESH)
        logins = {"good": token, "html": plays.answer(b"<p>"), "refused": _refused()}
        door = await stack.enter_async_context(Recorder(logins, of_login))
        vendor = plays.of_a_vendor(door.url, plays.Flood())
        recorder = await stack.enter_async_context(Recorder(vendor, asked_for))
        authority = await asyncio.to_thread(certificates.found_in, folder)
        cert, key = await asyncio.to_thread(authority.issue, "client")
        raw = configuration(recorder.url, door.url, cert, key) | keys
        await asyncio.to_thread(write, folder / "config.yaml", json.dumps(raw))
        await asyncio.to_thread(write, folder / "secret", SECRETS["client secret"] + "\n")
        known = await asyncio.to_thread(files_in, folder)
        program = Program(
            start, folder, {"CANARY_TOKEN": SECRETS["long-lived token"]} | (environ or {})
        )
        await stack.enter_async_context(program)
        running = Product(folder, program, recorder)
        running.secrets["TLS key"] = Path(key).read_text().splitlines()[1]  # noqa: ASYNC240 - a test's own
        yield running
        running.look_at_files(known)


def files_in(folder: Path) -> set[Path]:
    """List the files in a folder, at any depth."""
    return {path for path in folder.rglob("*") if path.is_file()}


def _refused() -> bytes:
    """Refuse a login, and say with what it was tried, as careless vendors do."""
    body = json.dumps({"error": f"no {SECRETS['client id']} with {SECRETS['client secret']}"})
    return plays.answer(body.encode(), status="401 Unauthorized")


def write(path: Path, text: str) -> None:
    """Write a file that is its owner's alone."""
    path.touch(mode=0o600)
    path.write_text(text)


def configuration(here: str, door: str, cert: str, key: str) -> dict[str, Any]:
    """Write a configuration that has every kind of secret, and a way to each kind of error."""
    nobody = f"http://127.0.0.1:{free_port()}"
    plain: dict[str, Any] = {"listen": "127.0.0.1:0", "upstream": here, "credential": "none"}
    via = f"http://user:{SECRETS['via password']}@127.0.0.1:{nobody.rpartition(':')[2]}"
    eka = {
        "kind": "eka",
        "client_id": SECRETS["client id"],
        "client_secret": {"file": "secret"},
        "login_url": f"{door}/good",
        "origins": [here, door],
        "sharing_key": SECRETS["sharing key"],
        "workspaces": {"old": {"api_key": SECRETS["api key"], "user_token": SECRETS["user token"]}},
    }
    eko = {
        "kind": "eko",
        "environment": "staging",
        "developer_key": SECRETS["developer key"],
        "access_key": SECRETS["access key"],
        "origins": [here],
    }
    tls = {"tls": {"cert": cert, "key": key}}
    return {
        "routes": {
            "plain": plain,
            "token": plain | {"credential": "static"},
            "eka": plain | {"credential": "eka"},
            "eko": plain | {"credential": "eko"},
            "html": plain | {"credential": "html"},
            "refused": plain | {"credential": "refused"},
            "narrow": plain
            | {"allow": ["GET /narrow/open"], "prefix": "/narrow", "max_body": "10B"},
            "private": plain | {"callers": ["other"]},
            "hasty": plain | {"timeout": {"response": 0.3}},
            "single": plain | {"max_in_flight": 1, "timeout": {"response": 1}},
            "nobody": plain | {"upstream": nobody, "credential": "static"},
            "via": plain
            | {"upstream": "https://x.eka.care", "credential": "eka", "via": via}
            | tls,
        },
        "credentials": {
            "static": {
                "kind": "bearer",
                "token": {"env": "CANARY_TOKEN"},
                "origins": [here, nobody],
            },
            "eka": eka,
            "eko": eko,
            "html": eka | {"login_url": f"{door}/html"},
            "refused": eka | {"login_url": f"{door}/refused"},
        },
        "access": {"keys": {"app": SECRETS["caller's key"], "other": "another-caller's-key"}},
        "admin": {"listen": "127.0.0.1:0"},
        "log": {"level": "debug"},
        "limits": {"header_timeout": 0.5},
    }


def with_fault(fault: str) -> tuple[str, ...]:
    """Start the product with a fault in it, which no user's has."""
    start = "import sys; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"
    return (sys.executable, "-P", "-c", f"{fault}\n{start}")


async def stand_in_payment(running: Product) -> Answer:
    """Make a payment whose answer is lost."""
    body = json.dumps(
        {
            "utility_acc_no": SECRETS["account"],
            "amount": 50,
            "user_code": sandbox.SANDBOX_USER_CODE,
            "aadhaar": SECRETS["aadhaar"],
        }
    ).encode()
    return await running.ask("eko", call("POST", PAYBILL, "X-Play: close", body=body))


def call(
    method: str, target: str, *lines: str, body: bytes = b"", key: str = "caller's key"
) -> bytes:
    """Write a request that carries what callers have to hide."""
    head = [
        *(f"{method} {target} HTTP/1.1", "Host: localhost", f"X-Ekeko-Key: {SECRETS[key]}"),
        *(f"Authorization: Bearer {SECRETS['authorization']}", f"Cookie: s={SECRETS['cookie']}"),
        *(*lines, "Content-Type: application/json", f"Content-Length: {len(body)}", "", ""),
    ]
    return "\r\n".join(head).encode("latin-1") + body
