"""What the three stand-ins share: journal, faults, control pages, and a clock of their own."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from proxy.sandbox.control import CONTROL_PREFIX, control
from proxy.sandbox.faults import Fault, FaultList, strike
from proxy.sandbox.wire import Arrived, Call, receive, unread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JOURNAL_LENGTH: Final = 1000


class StandIn(ABC):
    """One vendor's server: `arrived` counts requests, `calls` those that passed every check.

    `clock` gives wall seconds. Control pages are neither counted nor journalled.
    """

    name: ClassVar[str]

    def __init__(self, clock: "Callable[[], float]") -> None:
        self.clock = clock
        self.closing = asyncio.Event()
        self.journal: deque[Arrived] = deque(maxlen=JOURNAL_LENGTH)
        self.faults = FaultList()
        self.arrived = 0
        self.calls = 0

    @abstractmethod
    def answer(self, call: Call) -> web.Response:
        """Judge one whole request and carry it out."""

    def now(self) -> float:
        """Return what this server takes for the time: wall seconds, also told in `Date`."""
        return self.clock()

    def state(self) -> dict[str, Any]:
        """Return counters and settings as JSON values, no secrets."""
        return {
            "sandbox": self.name,
            "arrived": self.arrived,
            "calls": self.calls,
            "faults": len(self.faults),
        }

    def reset(self) -> None:
        """Return to how it was when it started."""
        self.journal.clear()
        self.faults.clear()
        self.arrived = self.calls = 0

    def levers(self) -> "Mapping[str, Callable[[dict[str, Any]], None]]":
        """Return what `POST /_sandbox/NAME` does besides faults and reset."""
        return {}

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request: control page, fault, or the vendor's own answer."""
        if request.raw_path.startswith(CONTROL_PREFIX):
            return await control(self, request)
        self.arrived += 1
        fault = self.faults.take(request.method, request.raw_path)
        response = await self._exchange(request, fault)
        response.headers.setdefault("Date", formatdate(self.now(), usegmt=True))
        return response

    async def _exchange(self, request: web.BaseRequest, fault: Fault | None) -> web.Response:
        read = fault is None or fault.read_body
        call = await receive(request) if read else unread(request)
        self.journal.append(call.arrived())
        if fault is None:
            return self._judge(call)
        done = self._judge(call) if fault.after_processing else None
        struck = await strike(fault, request, self.closing)
        if struck is not None:
            return struck
        return self._judge(call) if done is None else done

    def _judge(self, call: Call) -> web.Response:
        """Answer a whole request; one that its sender broke off is never carried out."""
        return self.answer(call) if call.body.complete else web.Response(status=400)
