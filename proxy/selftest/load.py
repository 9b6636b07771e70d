"""Load: what callers may hold, and that others are served meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from proxy.selftest.case import case, expect, get, post, refused
from proxy.selftest.ground import CONNECTIONS, HEADER_TIMEOUT, MAX_BODY
from proxy.selftest.plays import FLOOD

if TYPE_CHECKING:
    from proxy.selftest.ground import Ground

_BUFFERED: Final = 64 << 20  # bytes: what the kernel may hold on both connections, and some


@case(
    "slow-head",
    "Heads that come byte by byte, on fifty connections.",
    "dropped at the time limit; others are served meanwhile",
    threat=46,
)
async def _slow_head(ground: Ground) -> str:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(ground.line("plain")) for _ in range(50)]
        for byte in get()[:5]:
            for line in lines:
                await line.send(bytes([byte]))
            await asyncio.sleep(HEADER_TIMEOUT / 10)
            await ground.ordinary("plain")
        ended = await asyncio.gather(*(line.ends(HEADER_TIMEOUT + 2) for line in lines))
    expect(all(ended), f"{ended.count(False)} of 50 stay")
    return "all 50 were dropped"


@case(
    "slow-body",
    "A body that stops coming.",
    "given up in time; upstream never sees it whole",
    threat=46,
    route="hasty",
)
async def _slow_body(ground: Ground) -> str:
    watch = ground.watch()
    async with ground.line("hasty") as line:
        await line.send(post("Content-Length: 100", body=b"hello"))
        ended = await line.ends()
    await ground.ordinary("hasty")
    whole = [each for each in watch.arrived() if each.whole]
    expect(ended and not whole, "it goes on")
    return "given up"


@case(
    "connections",
    "More connections than `limits.connections`.",
    "503 overloaded for who is too many; served again once there is room",
    threat=47,
)
async def _connections(ground: Ground) -> str:
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(ground.line("plain"))
        answer = await ground.call("plain", b"")
    expect((answer.status, answer.code) == (503, "overloaded"), answer.seen)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if (await ground.call("plain", get())).status == 200:  # noqa: PLR2004
            return f"{CONNECTIONS} held; the next one: {answer.seen}"
    expect(condition=False, seen="nobody was served afterwards")
    return ""


@case(
    "pipeline",
    "Five hundred requests in one go.",
    "each answered, in order",
    threat=47,
)
async def _pipeline(ground: Ground) -> str:
    number = 500
    watch = ground.watch()
    async with ground.line("plain") as line:
        sending = asyncio.create_task(line.send(b"".join(get(f"/{n}") for n in range(number))))
        answers = [await line.answer() for _ in range(number)]
        await sending
    targets = [each.target for each in watch.arrived()]
    expect({answer.status for answer in answers} == {200}, "not all were answered")
    expect(targets == [f"/{n}" for n in range(number)], "not in order")
    return f"{number} answered in order"


@case(
    "slow-reader",
    f"A caller that does not read an answer of {FLOOD >> 20} MB.",
    "the upstream is heard no faster than the caller reads",
    threat=46,
)
async def _slow_reader(ground: Ground) -> str:
    async with ground.line("plain") as line:
        await line.send(get("/x", "X-Play: flood"))
        before = -1
        while before < ground.flood.sent:
            before = ground.flood.sent
            await asyncio.sleep(0.3)
    expect(0 < before <= _BUFFERED, f"{before >> 20} MB were taken")
    return f"{before >> 20} MB were taken, the system's buffers among them"


@case(
    "body-chunked",
    "A chunked body beyond `max_body`.",
    "413 body_too_large, never whole upstream",
    threat=47,
    route="small",
)
async def _body_chunked(ground: Ground) -> str:
    watch = ground.watch()
    chunk = b"%x\r\n%b\r\n" % (MAX_BODY, bytes(MAX_BODY))
    raw = post("Transfer-Encoding: chunked", body=chunk * 2 + b"0\r\n\r\n")
    answer = await ground.call("small", raw)
    whole = [each for each in watch.arrived() if each.whole]
    expect((answer.status, answer.code) == (413, "body_too_large") and not whole, answer.seen)
    return answer.seen


def _fields(number: int) -> list[str]:
    return [f"X-{each}: x" for each in range(number)]


CASES: Final = [
    refused(
        "many-fields",
        "Two hundred fields.",
        get("/x", *_fields(200)),
        threat=47,
        status=431,
        code="header_too_large",
    ),
    refused(
        "large-field",
        "A field of 64 KiB.",
        get("/x", f"X-Large: {'x' * 65_536}"),
        threat=47,
        status=431,
        code="header_too_large",
    ),
    refused(
        "long-target",
        "A target of 64 KiB.",
        get("/" + "x" * 65_536),
        threat=47,
        status=431,
        code="header_too_large",
    ),
    refused(
        "body",
        "A body beyond `max_body`, by its announced length.",
        post(f"Content-Length: {MAX_BODY + 1}", body=bytes(MAX_BODY + 1)),
        threat=47,
        status=413,
        code="body_too_large",
        route="small",
    ),
    _body_chunked,
    _slow_head,
    _slow_body,
    _slow_reader,
    _pipeline,
    _connections,
]
