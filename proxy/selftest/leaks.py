"""What may leak: into logs, answers, pages, arguments, or to who asks for it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from proxy.selftest.case import HIDDEN, NotTriedError, case, expect, get, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.selftest.ground import Ground

_PATIENT: Final = "176650465340471"
_AADHAAR: Final = "910842613377"
_MARK: Final = "canary-of-the-caller"
_MALFORMED: Final = (
    f"Authorization : Bearer {_MARK}",
    f"Authorization: Bearer {_MARK}\0",
    f"Authorization: Bearer\r {_MARK}",
    f"Authorization; Bearer {_MARK}",
    f"Auth orization: Bearer {_MARK}",
    f"Authorization: Bearer {_MARK}{'x' * 70_000}",
)
_PAGES: Final = ("/", "/livez", "/readyz", "/metrics", "/status.json", "/nothing")


def forms(secret: str) -> Iterator[bytes]:
    """Yield a text as it stands, and how it may stand encoded."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    yield plain.hex().upper().encode()
    yield quote(secret, safe="").encode()
    for before in range(3):  # at each place that it may have in a longer text
        whole = base64.b64encode(bytes(before) + plain)
        inner = whole[-(-before * 8 // 6) :][: len(plain) * 8 // 6 - 1]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _held_in(text: bytes, secrets: dict[str, str]) -> list[str]:
    """Name the secrets that a text holds, in any of their forms."""
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]


@case(
    "malformed-authorization",
    "Authorization lines that no parser takes, which parsers like to quote.",
    "neither in the answer nor in the log",
    threat=24,
)
async def _malformed(ground: Ground) -> str:
    for line in _MALFORMED:
        async with ground.line("plain") as caller:
            await caller.send(get("/x", line) + HIDDEN)
            got = await caller.rest()
        expect(got[9:12] in (b"400", b"431"), f"answered {got[9:12].decode(errors='replace')}")
        expect(_MARK.encode() not in got, "it stands in the answer")
    expect(_MARK.encode() not in await ground.log_after(), "it stands in the log")
    return "in neither"


@case(
    "numbers",
    "A patient's number in a path, an Aadhaar number in a query, a body and a field.",
    "not in the log, though each call has its line",
    threat=29,
    route="eka",
)
async def _numbers(ground: Ground) -> str:
    body = json.dumps({"aadhaar": _AADHAAR}).encode()
    lines = (f"X-Aadhaar: {_AADHAAR}", f"Content-Length: {len(body)}", "X-Request-Id: numbers")
    target = f"/dr/v1/patient/{_PATIENT}?aadhaar={_AADHAAR}"
    await ground.call("eka", request("PATCH", target, *lines, body=body))
    await ground.call("plain", get(f"/account/{_AADHAAR}/x?y={_AADHAAR}"))
    log = await ground.log_after()
    expect(b'"numbers"' in log, "the call has no line")
    left = [each for each in (_PATIENT, _AADHAAR) if each.encode() in log]
    expect(not left, f"{len(left)} of 2 numbers stand there")
    return "the template alone"


@case(
    "metrics-labels",
    "The same numbers, and methods of the caller's own making, in metrics.",
    "no label holds them",
    threat=50,
)
async def _labels(ground: Ground) -> str:
    for number in range(20):
        await ground.call("plain", request(f"X{number}", f"/account/{_AADHAAR}{number}"))
    text = (await ground.call("admin", get("/metrics"))).body
    expect(b"ekeko_requests_total" in text, "there are no metrics")
    expect(_AADHAAR.encode() not in text and b'"X1"' not in text, "a label holds them")
    return "none does"


@case(
    "pages",
    "Every admin page, and errors of several kinds, with secrets in use.",
    "no secret, in plain or encoded",
    threat=24,
    route="token",
)
async def _pages(ground: Ground) -> str:
    said = b""
    for path in _PAGES:
        answer = await ground.call("admin", get(path))
        said += b"".join(value for _, value in answer.fields) + answer.body
    for route in ("token", "login-good", "login-refused", "login-html", "login-hang"):
        for target in ("/x", "/a//b"):
            answer = await ground.call(route, get(target))
            said += b"".join(value for _, value in answer.fields) + answer.body
    found = _held_in(said, ground.canaries)
    expect(not found, f"found: {', '.join(found)}")
    return f"{len(said)} bytes, none of {len(ground.canaries)} secrets"


@case(
    "output",
    "All that the program has written so far, at its debug level.",
    "no secret, in plain or encoded",
    threat=24,
    route="token",
)
async def _output(ground: Ground) -> str:
    for route in ("login-good", "login-refused", "login-no-token", "login-life-huge"):
        await ground.call(route, get())
    log = await ground.log_after("token")
    found = _held_in(log, ground.canaries)
    expect(not found, f"found: {', '.join(found)}")
    expect(b"Traceback" not in log, "there is a traceback")
    return f"{len(log)} bytes, none of {len(ground.canaries)} secrets"


@case("arguments", "The arguments of its process.", "no secret", threat=26)
async def _arguments(ground: Ground) -> str:
    pid = ground.program.pid
    shown = await asyncio.to_thread(_arguments_of, pid)
    found = _held_in(shown, ground.canaries)
    expect(shown and not found, f"found: {', '.join(found)}")
    return "none"


def _core_limit(pid: int) -> list[str]:
    """Return the soft and the hard limit of a core's size, in bytes."""
    text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    (line,) = [each for each in text.splitlines() if "core file" in each]
    return line.split()[4:6]


def _arguments_of(pid: int) -> bytes:
    if (file := Path(f"/proc/{pid}/cmdline")).exists():
        return file.read_bytes()
    if (ps := shutil.which("ps")) is None:
        raise NotTriedError("this system shows no arguments")
    words = [ps, "-o", "args=", "-p", str(pid)]
    return subprocess.run(words, capture_output=True, check=True).stdout  # noqa: S603 - our own words


@case("core", "A core dump of its process.", "switched off", threat=27)
async def _core(ground: Ground) -> str:
    limit = await asyncio.to_thread(_core_limit, ground.program.pid)
    expect(limit == ["0", "0"], "a core may be written")
    return "none can be written"


@case(
    "mistyped",
    "`check` and `run` with secrets where they do not belong.",
    "exit status 2, no value quoted",
    threat=25,
)
async def _mistyped(ground: Ground) -> str:
    secret = ground.canaries["long-lived token"]
    texts = {
        "mapping": f"routes: {{}}\ncredentials:\n  c: {secret}\n",
        "key": f"routes: {{}}\ncredentials:\n  c: {{kind: bearer, {secret}: [{secret}]}}\n",
        "tab": f"routes: {{}}\ncredentials:\n\tc: {secret}\n",
        "quote": f'routes: {{}}\ncredentials:\n  c: {{kind: bearer, token: "{secret}}}\n',
        "env": f"routes: {{}}\ncredentials:\n  c: {{kind: bearer, token: {{env: {secret}}}}}\n",
    }
    runs = [
        ground.program.judge(command, f"{name}.yaml", text)
        for command in ("check", "run")
        for name, text in texts.items()
    ]
    for status, said in await asyncio.gather(*runs):
        expect(status == 2, f"exit status {status}")  # noqa: PLR2004
        expect(not _held_in(said, ground.canaries), "it is quoted")
    return f"{len(texts)} mistakes, none quoted"


@case(
    "login-answer",
    "A caller that logs in through the proxy, in several spellings.",
    "a synthetic token, and nothing at the vendor",
    threat=32,
    route="eka",
)
async def _login(ground: Ground) -> str:
    vendor = ground.stand_ins.eka
    logins, arrived = vendor.logins, vendor.arrived
    for target in (
        "/connect-auth/v1/account/login",
        "/connect-auth/v1/account/login/",
        "/Connect-Auth/v1/account/login",
        "/connect-auth/v1/account/refresh-token",
    ):
        body = b'{"client_id": "mine", "client_secret": "mine"}'
        raw = request("POST", target, f"Content-Length: {len(body)}", body=body)
        answer = await ground.call("eka", raw)
        expect(answer.status == 200 and b"access_token" in answer.body, answer.seen)  # noqa: PLR2004
        given = json.loads(answer.body)["access_token"]
        expect(given not in vendor.tokens.live(), "a live token was handed out")
    expect((vendor.logins, vendor.arrived) == (logins, arrived), "the vendor was asked")
    return "synthetic tokens; the vendor heard nothing"


@case(
    "no-store",
    "Keeping what admin pages and errors say.",
    "Cache-Control: no-store on all",
    threat=31,
)
async def _no_store(ground: Ground) -> str:
    answers = [await ground.call("admin", get(path)) for path in _PAGES]
    answers.append(await ground.call("plain", get("/a//b")))
    kept = [answer for answer in answers if answer.all("Cache-Control") != ["no-store"]]
    expect(not kept, f"{len(kept)} of {len(answers)} may be kept")
    return f"{len(answers)} answers"


@case(
    "echo",
    "A vendor that repeats the credential, in a field and in a body.",
    "masked",
    threat=58,
    route="token",
)
async def _echo(ground: Ground) -> str:
    answer = await ground.call("token", get("/x", "X-Play: echo"))
    said = b"".join(value for _, value in answer.fields) + answer.body
    expect(b"Authorization: Bearer ***" in answer.body, f"{answer.seen}, without an echo")
    found = _held_in(said, ground.canaries)
    expect(not found, f"found: {', '.join(found)}")
    return "masked in both"


CASES: Final = [
    _malformed,
    _numbers,
    _labels,
    _pages,
    _output,
    _arguments,
    *([_core] if sys.platform == "linux" else []),  # no other system shows it
    _mistyped,
    _login,
    _no_store,
    _echo,
]
