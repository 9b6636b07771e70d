"""No spelling of a target passes by a policy, and none changes on its way: over the real stack.

A caller's raw socket, a listener, its routes, and an upstream that records what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.sandbox import SANDBOX_ACCESS_KEY, SANDBOX_DEVELOPER_KEY
from tests.spellings import EXTENSION, READERS, TOLERANT, readings, spelled
from tests.support import Broken, ScriptedUpstream, answer, ask, plain_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Message, Proxy, UpstreamWire

ALLOW = ["GET /open/**", "GET /items/*", "GET /files/*.txt", "GET /exact/Path"]
FINANCIAL = [
    "/ekoapi/v3/customer/payment/bbps",
    "/ekoapi/v2/billpayments/paybill",
    "/ekoapi/v1/agent/user_code:20810200/settlement",
    "/ekoicici/v2/aeps",
]
LOGIN = "/connect-auth/v1/account/login"
DENIED = [
    *("/admin", "/", "/open/../admin", "/open/a/../../admin", "/openx/a", "/items", "/items/a/b"),
    *("/files/a.html", "/files/b/a.txt", "/exact", "/exact/Path/x", "/exact/Other"),
]
ALLOWED = ["/open", "/open/a/b.c", "/open/.well-known/x", "/items/a", "/files/a.txt", "/exact/Path"]

many = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Stack:
    """A proxy between a caller and an upstream that records; `ask` runs their loop."""

    def __init__(self, runner: asyncio.Runner, upstream: ScriptedUpstream, proxy: Proxy) -> None:
        self._runner = runner
        self._upstream = upstream
        self._proxy = proxy

    def ask(self, route: str, method: str, target: str) -> tuple[Message | None, list[str]]:
        """Send a request; return its answer, if there is one, and the targets that arrived."""
        self._upstream.requests.clear()
        got = self._runner.run(self._ask(route, method, target))
        arrived = [request for request in self._upstream.requests if not request.body]
        return got, [request.start.split(" ", 1)[1] for request in arrived]  # but the proxy's login

    async def _ask(self, route: str, method: str, target: str) -> Message | None:
        with contextlib.suppress(Broken):
            return await ask(self._proxy.url(route), method, target)
        return None


async def answering(wire: UpstreamWire) -> None:
    """Answer everything, but close on what is for Eko: whether it was money then shows."""
    while True:
        asked = await wire.request()
        if asked.body:
            await wire.send(answer(b'{"access_token": "t", "expires_in": 1800}'))
            continue
        if asked.get("developer_key") is not None:
            return
        await wire.send(answer(b"here"))


def routes(upstream: str) -> dict[str, Any]:
    def route(**keys: Any) -> dict[str, Any]:
        return {"listen": "127.0.0.1:0", "upstream": upstream, "credential": "none"} | keys

    keys = {"developer_key": SANDBOX_DEVELOPER_KEY, "access_key": SANDBOX_ACCESS_KEY}
    eko = {"kind": "eko", "environment": "staging", "request_hash": [], "origins": [upstream]}
    eka = {"client_id": "i", "client_secret": "s", "origins": [upstream], "login_url": upstream}
    return {
        "routes": {
            "limited": route(allow=ALLOW),
            "moved": route(
                allow=ALLOW, prefix="/in", strip_prefix=True, upstream=f"{upstream}/base"
            ),
            "eko": route(credential="eko"),
            "eka": route(credential="eka"),
            "plain": route(),
        },
        "credentials": {"eko": eko | keys, "eka": {"kind": "eka"} | eka},
    }


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with asyncio.Runner() as runner:
        upstream = ScriptedUpstream(answering)
        runner.run(upstream.__aenter__())
        proxying = plain_proxy(upstream.url, routes(upstream.url))
        proxy = runner.run(proxying.__aenter__())
        yield Stack(runner, upstream, proxy)
        runner.run(proxying.__aexit__(None, None, None))
        runner.run(upstream.__aexit__())


def is_allowed(path: str) -> bool:
    """ALLOW, said once more, for a path in lower case, without a slash or dots at an end."""
    segments = path.split("/")[1:]
    return (
        segments[0] == "open"
        or (segments[0] == "items" and len(segments) == 2 and segments[1] != "")
        or (segments[0] == "files" and len(segments) == 2 and segments[1].endswith(".txt"))
        or path == "/exact/path"
    )


@many
@given(spelled(st.sampled_from(DENIED + ALLOWED)))
@example("/items/")
@example("/files/secret%3Fx.txt")
@example("/files/secret%23.txt")
@example("/open/%EF%BC%8E%EF%BC%8E/admin")
@example("/open/..%E2%88%95admin")
@example("/open/%e2%80%a5/admin")
def test_whatever_passes_is_allowed_in_every_reading(stack: Stack, target: str) -> None:
    _, arrived = stack.ask("limited", "GET", target)
    if arrived:
        assert arrived == [f"{target} HTTP/1.1"]
        for path in readings(target.partition("?")[0], READERS):
            folded = path
            for fold in TOLERANT.values():
                folded = fold(folded)
            assert is_allowed(folded), path


@many
@given(spelled(st.sampled_from(DENIED + ALLOWED)), st.sampled_from(["/in", "/IN", "/%69n", "/i"]))
@example("/../admin", "/in")
@example("admin", "/in/open/..%2f")
def test_a_prefix_and_a_base_path_are_no_way_out(stack: Stack, target: str, prefix: str) -> None:
    _, arrived = stack.ask("moved", "GET", prefix + target)
    if arrived:
        assert prefix == "/in"
        path, query, rest = target.partition("?")
        assert arrived == [f"/base{path or '/'}{query}{rest} HTTP/1.1"]
        for read in readings(f"/base{path}", READERS):
            folded = read
            for fold in TOLERANT.values():
                folded = fold(folded)
            assert folded.startswith("/base/")
            assert is_allowed(folded.removeprefix("/base")), read


@many
@given(spelled(st.sampled_from(FINANCIAL)), st.sampled_from(["POST", "post", "Post"]))
@example(FINANCIAL[0] + ".json", "POST")
@example(FINANCIAL[0] + "%20", "POST")
@example(FINANCIAL[0] + "%3Fx=y", "POST")
@example(FINANCIAL[0] + "%c5%bf", "POST")
@example(FINANCIAL[0].replace("s", "%C5%BF"), "POST")
@example(FINANCIAL[0].replace("bbps", "%EF%BD%82bps"), "POST")
def test_a_payment_is_one_in_every_spelling_or_is_refused(
    stack: Stack, target: str, method: str
) -> None:
    got, arrived = stack.ask("eko", method, target)
    if arrived:
        assert got is not None
        read = readings(target.partition("?")[0], READERS, TOLERANT, EXTENSION, depth=3)
        is_payment = {path.lower() for path in read} & set(FINANCIAL)
        assert got.json()["code"] == "outcome_unknown" or not is_payment


@many
@given(spelled(st.just(LOGIN)), st.sampled_from(["POST"]))
@example(LOGIN + ".json", "POST")
@example(LOGIN + "%2e", "POST")
@example(LOGIN.replace("l", "%EF%BD%8C", 1), "POST")
def test_a_login_never_arrives_in_any_spelling(stack: Stack, target: str, method: str) -> None:
    _, arrived = stack.ask("eka", method, target)
    for line in arrived:
        path = line.removesuffix(" HTTP/1.1").partition("?")[0]
        read = readings(path, READERS, TOLERANT, EXTENSION, depth=3)
        assert LOGIN not in {each.lower() for each in read}


SEGMENTS = st.lists(
    st.sampled_from(
        [*"aZ09-._~!$&'()*+,=:@", "%20", "%C3%A9", "%c3%a9", "%2C", "%41", "%7e", "%25", "%5B"]
    ),
    min_size=1,
    max_size=6,
).map("".join)
QUERIES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20
)


@many
@given(st.lists(SEGMENTS, min_size=1, max_size=5), st.booleans(), st.none() | QUERIES)
def test_what_is_accepted_arrives_byte_for_byte(
    stack: Stack, segments: list[str], slash: object, query: str | None
) -> None:
    path = "/" + "/".join(segments) + ("/" if slash else "")
    target = path if query is None else f"{path}?{query}"
    for route, sent, expected in (
        ("plain", target, target),
        ("moved", f"/in/open{target}", f"/base/open{target}"),
    ):
        got, arrived = stack.ask(route, "GET", sent)
        assert got is not None
        if got.status == 200:
            assert arrived == [f"{expected} HTTP/1.1"]
        else:
            assert (got.json()["code"], arrived) == ("bad_request", [])
            assert not set(segments) <= {"a", "Z", "0", "~", "%41", "%20a"}
