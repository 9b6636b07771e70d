"""What a case is, and the kinds of case that are data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proxy.selftest.ground import Ground

    Attack = Callable[[Ground], Awaitable[str]]

# Stands behind what is to be refused; it must be neither answered nor passed on.
HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"


class GaveWayError(Exception):
    """An attack that was not held off. The text says what was seen, no secret among it."""


class NotTriedError(Exception):
    """An attack that could not be made, so that nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack. `attack` returns what was seen where it held, GaveWayError where it did not.

    Before it, an ordinary call has to get through `route`: a proxy that refuses everything holds
    off nothing.
    """

    name: str
    tried: str
    expected: str
    threat: int  # in THREAT_MODEL.md
    attack: Attack
    route: str = "plain"


def expect(condition: object, seen: str) -> None:
    """Let a case give way unless something is so."""
    if not condition:
        raise GaveWayError(seen)


def case(
    name: str, tried: str, expected: str, *, threat: int, route: str = "plain"
) -> Callable[[Attack], Case]:
    """Make a case of a function."""

    def made(attack: Attack) -> Case:
        return Case(
            name=name, tried=tried, expected=expected, threat=threat, attack=attack, route=route
        )

    return made


def request(
    method: str, target: str, *lines: str, body: bytes = b"", host: str = "localhost"
) -> bytes:
    """Write a request to the byte; what is beyond ASCII in it is sent as latin-1."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def get(target: str = "/x", *lines: str, host: str = "localhost") -> bytes:
    """Write a GET."""
    return request("GET", target, *lines, host=host)


def post(*lines: str, body: bytes = b"", target: str = "/x") -> bytes:
    """Write a POST, whose framing stands in `lines`."""
    return request("POST", target, *lines, body=body)


def refused(
    name: str,
    tried: str,
    raw: bytes,
    *,
    threat: int,
    status: int = 400,
    code: str = "bad_request",
    route: str = "plain",
) -> Case:
    """Expect a refusal by the proxy itself, and nothing upstream."""
    closes = status == 400  # noqa: PLR2004 - what follows may not be a request

    async def attack(ground: Ground) -> str:
        watch = ground.watch()
        async with ground.line(route) as line:
            await line.send(raw + HIDDEN if closes else raw)
            answer = await line.answer()
            more = await line.rest() if closes else b""
        await ground.ordinary(route)  # what the proxy had to send before has arrived by now
        arrived = watch.arrived()
        expect(not arrived, f"{answer.seen}; {len(arrived)} reached the upstream")
        expect((answer.status, answer.code) == (status, code), answer.seen)
        expect(not more, f"{answer.seen}, and what stood behind it was answered too")
        return f"{answer.seen}; nothing reached the upstream"

    return Case(
        name=name,
        tried=tried,
        expected=f"{status} {code}, nothing upstream",
        threat=threat,
        attack=attack,
        route=route,
    )


def arrives(
    name: str, tried: str, raw: bytes, *, threat: int, as_sent: bytes, route: str = "plain"
) -> Case:
    """Expect what is legitimate to arrive, its request line to the byte."""

    async def attack(ground: Ground) -> str:
        watch = ground.watch()
        answer = await ground.call(route, raw)
        expect(answer.status == 200, answer.seen)  # noqa: PLR2004
        got = [each.start for each in watch.arrived()]
        expect(got == [as_sent], f"{len(got)} arrived, or spelled otherwise")
        return f"{answer.status}; arrived as it was spelled"

    return Case(
        name=name,
        tried=tried,
        expected="arrives as it was spelled",
        threat=threat,
        attack=attack,
        route=route,
    )
