"""A product that runs: every error, every page, every way to end, and no secret in any of it.

Out of scope: `/proc/PID/environ`, which shows the environment to the process's own user (and, as
the process is not dumpable, to root alone), and the arguments that a test itself gives.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from proxy import errors
from tests.canaries.product import (
    PAYBILL,
    SECRETS,
    Product,
    call,
    product,
    stand_in_payment,
    with_fault,
    write,
)
from tests.support import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

WAYS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "debug": ({}, {}),
    "Python's development mode": ({"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}, {}),
    "workers": ({}, {"workers": 2}),
}
WHERE = f"/dr/v1/patient/{SECRETS['patient']}?aadhaar={SECRETS['aadhaar']}&to={SECRETS['account']}"
BODY = f'{{"aadhaar": "{SECRETS["aadhaar"]}"}}'.encode()
# One that a test cannot reach from outside: it takes a fault in the product.
BY_FAULT = {"internal_error"}

# A defect, with all that is at hand in what is raised.
FAULT = """
import asyncio
from proxy.exchange import Exchange

async def fail(what):
    raise KeyError(what)

async def forward(self, route, target, fields):
    authorization = await route.credential.authorise(None)
    what = (authorization.lines, list(self.caller.fields), target.raw, self.caller.target)
    asyncio.create_task(fail(what)).set_name("left alone")
    asyncio.get_running_loop().call_soon(lambda: {}[what])
    try:
        raise ValueError(what)
    except ValueError as error:
        raise KeyError(what) from error

Exchange._forward = forward
"""


async def every_error(running: Product) -> None:
    """Cause each error of the proxy's own, in calls that carry what nobody may see."""
    refused: list[tuple[str, bytes]] = [
        ("plain", call("GET", f"/a//b{WHERE}")),
        ("plain", call("GET", WHERE, key="wrong key")),
        ("plain", call("GET", WHERE, "Origin: https://evil.example")),
        ("plain", call("GET", WHERE).replace(b"localhost", b"evil.example")),
        ("plain", call("GET", WHERE, f"X-Large: {SECRETS['dummy'] * 8000}")),
        ("private", call("GET", WHERE)),
        ("narrow", call("GET", f"/narrow{WHERE}")),
        ("narrow", call("GET", WHERE)),
        ("narrow", call("GET", "/narrow/open", body=BODY)),
        ("narrow", call("GET", "/open")),
        ("eka", call("GET", WHERE, f"X-Eka-Workspace: {SECRETS['dummy']}")),
        ("eko", call("POST", PAYBILL, body=BODY)),
        *(
            (route, call(method, WHERE, f"X-Play: {play}", body=BODY))
            for route, play in (
                *(("html", "ok"), ("refused", "ok"), ("hasty", "never"), ("nobody", "ok")),
                *(("via", "ok"), ("token", "close"), ("eka", "not-http"), ("eko", "cl-and-te")),
                *(("token", "obs-fold"), ("token", "unauthorised"), ("eka", "unauthorised")),
            )
            for method in ("GET", "POST")
        ),
    ]
    for where, raw in refused:
        await running.ask(where, raw)
    for line in (
        f"Authorization : Bearer {SECRETS['authorization']}",
        f"Authorization: Bearer {SECRETS['authorization']}\0",
        f"Authorization; Bearer {SECRETS['authorization']}",
        f"Authorization: Bearer\r{SECRETS['authorization']}",
        f"X-Ekeko-Key : {SECRETS['wrong key']}",
    ):
        await running.ask("token", call("GET", WHERE, line))
    await stand_in_payment(running)
    slow = call("GET", WHERE)[:-2]  # a head that does not come to its end
    many = (running.ask("single", call("GET", WHERE, "X-Play: never")) for _ in range(6))
    await asyncio.gather(running.ask("plain", slow), *many)


async def every_page(running: Product) -> None:
    for path in ("/", "/livez", "/readyz", "/metrics", "/status.json", "/healthz", f"/x{WHERE}"):
        for method in ("GET", "POST"):
            await running.ask("admin", call(method, path))
        await running.ask("admin", call("GET", path, key="wrong key"))


async def every_answer(running: Product) -> None:
    """Ordinary calls and logins of SDKs."""
    dummy = f'{{"client_id": "x", "client_secret": "{SECRETS["dummy"]}"}}'.encode()
    for route in ("plain", "token", "eka", "eko"):
        assert (await running.ask(route, call("GET", WHERE))).status == 200
    for path in ("login", "refresh", "refresh-token"):
        target = f"/connect-auth/v1/account/{path}"
        assert (await running.ask("eka", call("POST", target, body=dummy))).status == 200


async def bad_reloads(running: Product) -> None:
    """Read a configuration again that has its secrets in wrong places."""
    file = running.folder / "config.yaml"
    good = await asyncio.to_thread(file.read_text)
    secret = SECRETS["long-lived token"].replace("\\", "").replace('"', "")
    for number, text in enumerate(
        (f"credentials: {{a: '{secret[:9]}'}}", f'routes:\n\t"{secret[:9]}"', "routes: {}")
    ):
        await asyncio.to_thread(write, file, f"{text}\n# {number}\n")
        running.signal(signal.SIGHUP)
        await until(lambda n=number: running.program.output.count(b"stays as it was") > n)  # type: ignore[misc]
    await asyncio.to_thread(write, file, good)
    running.signal(signal.SIGHUP)
    await running.program.said(b"the configuration was read again")


@pytest.mark.parametrize("way", WAYS)
async def test_no_secret_is_in_anything_that_it_tells(way: str, tmp_path: Path) -> None:
    environ, keys = WAYS[way]
    async with product(tmp_path, environ=environ, **keys) as running:
        await every_answer(running)
        await every_error(running)
        await every_page(running)
        await bad_reloads(running)
        await every_answer(running)
        running.look_at_arguments()
        running.signal(signal.SIGTERM)
        await running.ended()
        # That all was tried, and that what is searched is what was written.
        assert running.codes == set(errors._TITLE) - BY_FAULT
        assert running.program.output.count(b'"request_id"') > 50
        assert any(each.all("Authorization") for each in running.recorder.journal)
        sent = [each.all("auth") for each in running.recorder.journal]
        assert [SECRETS["access token"]] in sent
    assert running.found() == []


async def test_no_defect_shows_what_was_at_hand(tmp_path: Path) -> None:
    async with product(tmp_path, start=with_fault(FAULT)) as running:
        for route in ("plain", "token", "eka"):
            answer = await running.ask(route, call("POST", WHERE, body=BODY))
            assert answer.code == "internal_error"
        running.signal(signal.SIGTERM)
        await running.ended()
        assert running.codes == BY_FAULT
    output = bytes(running.program.output)
    assert output.count(b"failed unexpectedly") == 3
    assert output.count(b"Task exception was never retrieved") >= 1
    assert output.count(b"Exception in callback\n") >= 1
    assert output.count(b"in forward\n") >= 3  # where it happened is told, and what it was
    assert b"\nValueError\nas this was dealt with:\n" in output
    assert b"\nKeyError\n" in output
    assert running.found() == []


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
async def test_no_crash_shows_what_was_at_hand(tmp_path: Path, number: signal.Signals) -> None:
    async with product(tmp_path, environ={"PYTHONFAULTHANDLER": "1"}) as running:
        await every_answer(running)
        running.signal(number)
        await running.ended()
    assert b"Fatal Python error" in running.program.output
    assert running.found() == []


async def test_what_does_leak_is_found(tmp_path: Path) -> None:
    """Or else none of the above would mean anything."""
    leak = (
        "import logging; from proxy.credentials.login import LoginClient\n"
        "before = LoginClient.post\n"
        "async def post(self, path, payload, headers):\n"
        "    logging.info('%r', payload)\n"
        "    return await before(self, path, payload, headers)\n"
        "LoginClient.post = post"
    )
    async with product(tmp_path, start=with_fault(leak)) as running:
        await every_answer(running)
    assert "client secret, repr, in its output" in running.found()
