"""What a vendor, or who stands in its place, may do to callers by its answers."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

from proxy.selftest.case import case, expect, get, request
from proxy.selftest.plays import BOMB

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground


def _play(name: str) -> str:
    return f"X-Play: {name}"


def _broken(name: str, tried: str, play: str, code: str = "upstream_protocol_error") -> Case:
    """Expect an answer of the vendor's to be refused with 502."""

    @case(name, tried, f"502 {code}", threat=19)
    async def attack(ground: Ground) -> str:
        answer = await ground.call("plain", get("/x", _play(play)))
        expect((answer.status, answer.code) == (502, code), answer.seen)
        return answer.seen

    return attack


def _cut(name: str, tried: str, play: str) -> Case:
    """Expect a body that breaks off to be seen as such."""

    @case(name, tried, "the caller's connection breaks: it does not look whole", threat=39)
    async def attack(ground: Ground) -> str:
        answer = await ground.call("plain", get("/x", _play(play)))
        expect(answer.status == 200 and not answer.whole, answer.seen)  # noqa: PLR2004
        return answer.seen

    return attack


@case(
    "two-answers",
    "A second answer right behind the first.",
    "the next caller gets its own",
    threat=30,
)
async def _two_answers(ground: Ground) -> str:
    for play, method in (("two-answers", "GET"), ("body-to-head", "HEAD")):
        first = await ground.call("plain", request(method, "/x", _play(play)))
        second = await ground.call("plain", get())
        expect(first.status == second.status == 200, second.seen)  # noqa: PLR2004
        expect(second.body == b"ok", "the next caller got what was not for it")
    return "nobody got it"


@case("cookie", "A cookie set for one caller.", "not sent with the next one's call", threat=30)
async def _cookie(ground: Ground) -> str:
    await ground.call("plain", get("/x", _play("cookie")))
    watch = ground.watch()
    await ground.call("plain", get())
    expect(not watch.arrived()[0].all("Cookie"), "it was sent")
    return "it was not"


@case(
    "voice",
    "An upstream that answers in the proxy's words: X-Ekeko-Error.",
    "the field is removed",
    threat=36,
)
async def _voice(ground: Ground) -> str:
    answer = await ground.call("plain", get("/x", _play("voice")))
    expect(answer.status == 403 and not answer.code, answer.seen)  # noqa: PLR2004
    return answer.seen


@case(
    "bomb",
    "A compressed body that is a thousand times as large when it is not.",
    "passed on as it is",
    threat=49,
)
async def _bomb(ground: Ground) -> str:
    answer = await ground.call("plain", get("/x", _play("bomb"), "Accept-Encoding: gzip"))
    expect(answer.body == BOMB, f"{len(answer.body)} bytes came of {len(BOMB)}")
    upload = request(
        "POST", "/x", "Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB
    )
    watch = ground.watch()
    await ground.call("plain", upload)
    expect(watch.arrived()[0].body == BOMB, "an upload was changed")
    return f"{len(BOMB)} bytes both ways, not {len(gzip.decompress(BOMB))}"


@case(
    "silence", "An upstream that never answers.", "504 upstream_timeout", threat=46, route="hasty"
)
async def _silence(ground: Ground) -> str:
    answer = await ground.call("hasty", get("/x", _play("never")))
    expect((answer.status, answer.code) == (504, "upstream_timeout"), answer.seen)
    return answer.seen


CASES: Final = [
    _broken("cl-and-te", "A length and chunks.", "cl-and-te"),
    _broken("two-cls", "Two lengths that differ.", "two-cls"),
    _broken("te-twice", "Two Transfer-Encodings.", "te-twice"),
    _broken("odd-length", "A length with a plus.", "odd-length"),
    _broken("obs-fold", "A folded field.", "obs-fold"),
    _broken("bare-cr", "A CR within a field.", "bare-cr"),
    _broken("nul", "A NUL in a field.", "nul"),
    _broken("control-status", "A control character in the status line.", "control-status"),
    _broken("not-http", "Another protocol's greeting.", "not-http"),
    _broken("switch-unasked", "A switch of protocols that nobody asked for.", "switch-unasked"),
    _broken("endless-head", "A head without end.", "endless-head"),
    _broken("endless-interim", "Interim answers without end.", "endless-interim"),
    _cut("short", "A body shorter than its length.", "short"),
    _cut("short-chunked", "Chunks without the last one.", "short-chunked"),
    _cut("bad-chunk", "Chunks that turn into nonsense.", "bad-chunk"),
    _two_answers,
    _cookie,
    _voice,
    _bomb,
    _silence,
]
