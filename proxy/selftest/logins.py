"""Faults of the token endpoint: what it may answer, how often it is asked."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

from proxy.selftest.case import case, expect, get

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground

_CALL: Final = "/dr/v1/patient/1"
_DAY: Final = 86_400  # seconds


def _useless(name: str, tried: str, code: str = "credential_unavailable") -> Case:
    """Expect no call to go out on what a token endpoint answers."""

    @case(
        name, tried, f"503 {code}; nothing goes upstream, the endpoint is not hammered", threat=42
    )
    async def attack(ground: Ground) -> str:
        watch, route = ground.watch(), f"login-{name}"
        answers = [await ground.call(route, get()) for _ in range(20)]
        seen = {answer.code for answer in answers}
        expect(not watch.arrived(), "a call went out")
        expect(seen == {code}, f"answered {', '.join(sorted(seen))}")
        asked = sum(each.target.startswith(f"/{name}/") for each in ground.door.journal)
        expect(0 < asked <= 6, f"the endpoint was asked {asked} times")  # noqa: PLR2004
        return f"503 {code}; asked {asked} times for {len(answers)} calls"

    return attack


@case(
    "hang",
    "A token endpoint that never answers.",
    "calls end in time, and others are served",
    threat=42,
)
async def _hang(ground: Ground) -> str:
    watch = ground.watch()
    answer, other = await asyncio.gather(
        ground.call("login-hang", get()), ground.call("plain", get())
    )
    expect(answer.status in (503, 504) and other.status == 200, answer.seen)  # noqa: PLR2004
    expect(len(watch.arrived()) == 1, "a call went out without a token")
    return answer.seen


@case(
    "life-huge",
    "A token that is said to live for 30,000 years.",
    "used for a day at most",
    threat=42,
)
async def _life_huge(ground: Ground) -> str:
    answer = await ground.call("login-life-huge", get())
    text = (await ground.call("admin", get("/metrics"))).body.decode()
    pattern = r'^ekeko_token_expiry_timestamp_seconds{credential="login-life-huge"} (\S+)$'
    found = re.search(pattern, text, re.MULTILINE)
    expect(answer.status == 200 and found, answer.seen)  # noqa: PLR2004
    left = float(found[1]) - time.time() if found else 0.0
    expect(0 < left <= _DAY, "used for longer")
    return "at most a day"


@case(
    "redirected",
    "A token endpoint that redirects elsewhere.",
    "not followed: the client's secret stays",
    threat=10,
)
async def _redirected(ground: Ground) -> str:
    before = ground.trap.connections
    answer = await ground.call("login-redirect", get())
    expect(answer.status == 503 and ground.trap.connections == before, answer.seen)  # noqa: PLR2004
    return f"{answer.seen}; nobody went there"


@case(
    "stampede",
    "Two hundred callers who need a token that is not there yet.",
    "one login; the first to leave takes nobody along",
    threat=41,
    route="eka",
)
async def _stampede(ground: Ground) -> str:
    eka, number = ground.stand_ins.eka, 200
    before = eka.logins
    raw = get("/dr/v1/business/entities", "X-Eka-Workspace: clinic-b")
    async with ground.line("eka") as first:
        await first.send(raw)
    answers = await asyncio.gather(*(ground.call("eka", raw) for _ in range(number)))
    good = sum(answer.status == 200 for answer in answers)  # noqa: PLR2004
    logins = eka.logins - before
    expect(good == number, f"{number - good} of {number} failed")
    expect(logins == 1, f"{logins} logins")
    return f"{number} served, one login"


@case(
    "expiry",
    "Tokens that live for one second, under a stream of calls.",
    "no expired token goes out",
    threat=42,
    route="eka",
)
async def _expiry(ground: Ground) -> str:
    eka = ground.stand_ins.eka
    usual, eka.token_lifetime = eka.token_lifetime, 1.0
    try:
        eka.expire_all()
        await ground.call("eka", get(_CALL))  # healed by a token of the new kind
        calls, arrived, until = 0, eka.calls, time.monotonic() + 2.2
        while time.monotonic() < until:
            answer = await ground.call("eka", get(_CALL))
            expect(answer.status == 200, answer.seen)  # noqa: PLR2004
            calls += 1
            await asyncio.sleep(0.02)
        rejected = calls - sum(
            each.target == _CALL for each in list(eka.journal)[-(eka.calls - arrived) :]
        )
        expect(rejected <= 0, f"{rejected} calls did not arrive")
    finally:
        eka.token_lifetime = usual
        eka.expire_all()
    return f"{calls} calls, all with a valid one"


@case(
    "healing",
    "A token that the vendor has revoked.",
    "one login and one more try; the caller sees nothing of it",
    threat=38,
    route="eka",
)
async def _healing(ground: Ground) -> str:
    eka = ground.stand_ins.eka
    await ground.ordinary("eka")
    eka.revoke_all(sessions=True)
    logins = eka.logins
    answers = await asyncio.gather(*(ground.call("eka", get(_CALL)) for _ in range(50)))
    statuses = {answer.status for answer in answers}
    expect(statuses == {200}, f"answered {', '.join(map(str, sorted(statuses)))}")
    expect(eka.logins - logins == 1, f"{eka.logins - logins} logins")
    return "50 calls, one login"


CASES: Final = [
    _useless("empty", "An empty answer with status 200."),
    _useless("html", "A page for people with status 200."),
    _useless("no-token", "An answer without a token."),
    _useless("not-utf8", "An answer that is not UTF-8."),
    _useless("life-zero", "A token that lives for no time."),
    _useless("life-negative", "A token that has expired."),
    _useless("life-text", "A lifetime in words."),
    _useless("line-break", "A token with a line break, which would be a field of its own."),
    _useless("not-ascii", "A token that cannot stand in a field."),
    _useless("huge", "An answer of 30 MB."),
    _useless("cut", "An answer that breaks off."),
    _useless("too-many", "429 with Retry-After."),
    _useless("refused", "Credentials that are wrong.", "credential_rejected"),
    _redirected,
    _hang,
    _life_huge,
    _stampede,
    _expiry,
    _healing,
]
