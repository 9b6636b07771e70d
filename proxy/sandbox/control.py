"""The levers of a stand-in over HTTP, under `/_sandbox/`, for people and scripts.

No authentication: whoever reaches the port reaches dummies. No secret is ever in an answer.
"""

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from proxy.sandbox.faults import DescriptionError, FaultList, parse_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTROL_PREFIX: Final = "/_sandbox/"


class Controlled(Protocol):
    """What the control pages need of a stand-in."""

    @property
    def faults(self) -> FaultList:
        """The faults that wait for a request."""
        ...

    def state(self) -> dict[str, Any]:
        """Counters and settings, no secrets."""
        ...

    def reset(self) -> None:
        """Back to how it was when it started."""
        ...

    def levers(self) -> "Mapping[str, Callable[[dict[str, Any]], None]]":
        """POST names of its own; a lever raises DescriptionError on a body it cannot use."""
        ...


async def control(stand_in: Controlled, request: web.BaseRequest) -> web.Response:
    """Answer one request below CONTROL_PREFIX; mistakes are a 400 that says what is wrong."""
    name = request.raw_path.partition("?")[0].removeprefix(CONTROL_PREFIX)
    try:
        return _dispatch(stand_in, request.method, name, await _json(request))
    except DescriptionError as error:
        return web.json_response({"error": str(error)}, status=400)


def _dispatch(stand_in: Controlled, method: str, name: str, body: object) -> web.Response:
    match method, name:
        case "GET", "state":
            return web.json_response(stand_in.state())
        case _, "faults":
            return _faults(stand_in.faults, method, body)
        case "POST", "reset":
            stand_in.reset()
        case "POST", _ if name in stand_in.levers():
            if not isinstance(body, dict):
                raise DescriptionError("expected a JSON object, or no body")
            stand_in.levers()[name](body)
        case _:
            return web.json_response({"error": f"no {method} {name} here"}, status=404)
    return web.json_response(stand_in.state())


def _faults(faults: FaultList, method: str, body: object) -> web.Response:
    match method:
        case "POST":
            # All are read before the first is added: a bad list changes nothing.
            faults.add(*map(parse_fault, body if isinstance(body, list) else [body]))
        case "DELETE":
            faults.clear()
        case "GET":
            pass
        case _:
            return web.json_response({"error": "GET, POST or DELETE"}, status=405)
    return web.json_response({"faults": faults.described()})


async def _json(request: web.BaseRequest) -> object:
    """Decode the body; none at all counts as an empty object."""
    raw = await request.read()
    try:
        return json.loads(raw) if raw else {}
    except ValueError:
        raise DescriptionError("the body is not JSON") from None
