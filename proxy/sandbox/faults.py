"""Faults on demand: answers that a healthy vendor never gives, for one request or for many."""

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "status",  # this answer instead of the real one
    "delay",  # the real answer, `seconds` late
    "hang",  # no answer, the connection stays open
    "reset_before_head",  # TCP reset instead of an answer
    "close_before_head",  # orderly close instead of an answer
    "reset_mid_body",  # a head, part of the body, TCP reset
    "short_body",  # a head, less body than Content-Length promised, orderly close
    "echo",  # an answer that repeats the request's header fields, in its own and in its body
    "garbage",  # `body` as raw bytes instead of HTTP, orderly close
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_MISSING_BYTES: Final = 1000  # how much a broken-off body lacks
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "match": (str,),
    "kind": (str,),
    "status": (int,),
    "headers": (dict,),
    "body": (str,),
    "seconds": (int, float),
    "times": (int, type(None)),
    "after_processing": (bool,),
    "read_body": (bool,),
}


class DescriptionError(ValueError):
    """A description of a fault or a setting that cannot be used; the text says what is wrong."""


@dataclass(slots=True)
class Fault:
    """One fault; `match` is "*" or "METHOD /prefix" of the raw target (METHOD may be "*").

    `times` None is for ever. `after_processing`: the operation is carried out and recorded
    first. `read_body` False: the fault strikes before the body is read.
    """

    match: str = "*"
    kind: Kind = "status"
    status: int = 500
    headers: "Mapping[str, str]" = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0
    times: int | None = 1
    after_processing: bool = False
    read_body: bool = True

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        method, _, prefix = self.match.partition(" ")
        if self.match != "*" and not (method and prefix.startswith("/")):
            raise DescriptionError('match: expected "*" or "METHOD /path/prefix"')
        if self.kind not in KINDS:
            raise DescriptionError(f"kind: expected one of {', '.join(KINDS)}")
        if not 200 <= self.status <= 599:  # noqa: PLR2004 - final statuses of HTTP
            raise DescriptionError("status: expected 200 to 599")
        if self.times is not None and self.times < 1:
            raise DescriptionError("times: expected a count of at least 1, or null for ever")
        if not self.seconds >= 0:
            raise DescriptionError("seconds: expected 0 or more")
        if self.after_processing and not self.read_body:
            raise DescriptionError("after_processing needs the body: read_body cannot be false")
        if any(set("\r\n\0") & set(name + value) for name, value in self.headers.items()):
            raise DescriptionError("headers: line breaks and NUL cannot be sent; use kind garbage")

    def matches(self, method: str, target: str) -> bool:
        """Tell whether this fault is meant for such a request."""
        wanted, _, prefix = self.match.partition(" ")
        return self.match == "*" or (
            wanted.upper() in ("*", method.upper()) and target.startswith(prefix)
        )


def parse_fault(value: object) -> Fault:
    """Make a fault of decoded JSON; a DescriptionError names the field that is wrong."""
    if not isinstance(value, dict):
        raise DescriptionError("a fault is a JSON object")
    described: dict[str, Any] = {}
    for name, given in value.items():
        if name not in _TYPES:
            raise DescriptionError(f"{name}: no such field; there are {', '.join(_TYPES)}")
        # To Python a bool is an int; to a person it is a mistake.
        if not isinstance(given, _TYPES[name]) or (
            isinstance(given, bool) and bool not in _TYPES[name]
        ):
            raise DescriptionError(f"{name}: wrong type {type(given).__name__}")
        described[name] = given
    if not all(isinstance(text, str) for text in described.get("headers", {}).values()):
        raise DescriptionError("headers: expected text values")
    return Fault(**described)


class FaultList:
    """The pending faults of one stand-in; the first that matches strikes."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, *faults: Fault) -> None:
        """Append faults; each keeps its own remaining count."""
        self._pending.extend(faults)

    def clear(self) -> None:
        """Forget all faults; one that is striking already goes on."""
        self._pending.clear()

    def take(self, method: str, target: str) -> Fault | None:
        """Return the fault for this request, one of its `times` used up."""
        fault = next((f for f in self._pending if f.matches(method, target)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._pending.remove(fault)
        return fault

    def described(self) -> list[dict[str, Any]]:
        """Return the pending faults as JSON values."""
        return [{f.name: getattr(fault, f.name) for f in fields(fault)} for fault in self._pending]


async def strike(
    fault: Fault, request: web.BaseRequest, closing: asyncio.Event
) -> web.Response | None:
    """Carry the fault out; None means that the real answer is to follow.

    A returned answer to a connection that was broken here goes nowhere; aiohttp only wants one.
    """
    match fault.kind:
        case "delay":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), fault.seconds)
            return None
        case "status":
            return _answer(fault)
        case "echo":
            return _echo(fault, request)
        case "hang":
            await closing.wait()
            await _break_off(request, b"")
        case "reset_before_head":
            await _break_off(request, b"", reset=True)
        case "close_before_head":
            await _break_off(request, b"")
        case "reset_mid_body":
            await _break_off(request, _torn(fault), reset=True)
        case "short_body":
            await _break_off(request, _torn(fault))
        case "garbage":
            await _break_off(request, (fault.body or "this is not HTTP\r\n\r\n").encode())
    return web.Response()


def _answer(fault: Fault) -> web.Response:
    headers = {"Content-Type": "application/json", **fault.headers}
    return web.Response(status=fault.status, headers=headers, body=fault.body.encode())


def _echo(fault: Fault, request: web.BaseRequest) -> web.Response:
    """Do as debugging aids do, and gateways that explain a refusal."""
    sent = {name.decode(): value.decode("latin-1") for name, value in request.raw_headers}
    headers = {f"Echo-{name}": value for name, value in sent.items()}
    body = json.dumps({"error": "as you sent it", "headers": sent})
    return web.Response(
        status=fault.status,
        headers={"Content-Type": "application/json", **headers, **fault.headers},
        body=body.encode(),
    )


def _torn(fault: Fault) -> bytes:
    body = (fault.body or json.dumps({"sandbox": "broken off"})).encode()
    lines = [f"HTTP/1.1 {fault.status} Sandbox", f"Content-Length: {len(body) + _MISSING_BYTES}"]
    lines += [f"{name}: {value}" for name, value in fault.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _break_off(request: web.BaseRequest, data: bytes, *, reset: bool = False) -> None:
    """Send `data` as it is and end the connection, by FIN or by RST."""
    transport = request.transport
    if transport is None:
        return
    # No buffer allowed: `drain` then waits until the kernel has everything, and the abort below
    # loses nothing that was meant to arrive.
    transport.set_write_buffer_limits(high=0)
    transport.write(data)
    with contextlib.suppress(ConnectionError):
        await request.writer.drain()
    if reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
