"""What a listener does with requests: each becomes an `Exchange`, by the rules of the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.exchange import Exchange, RequestIds

if TYPE_CHECKING:
    from aiohttp import web

    from proxy.body import Budget
    from proxy.clock import Clock
    from proxy.errors import ProxyError
    from proxy.guard import Guard
    from proxy.observe import Observer
    from proxy.route import Route
    from proxy.routing import Prefixes


class Forwarder:
    """What one listener does with requests. `guard` and `routes` change with a reload."""

    def __init__(
        self,
        guard: Guard,
        routes: Prefixes[Route],
        *,
        budget: Budget,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.guard = guard
        self.routes = routes
        self.clock = clock
        self.observer = observer
        self.budget = budget
        self.ids = RequestIds()
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request of aiohttp's server."""
        return await Exchange(self, request).run()

    def reject(self, request: web.BaseRequest, error: ProxyError) -> web.StreamResponse:
        """Answer a request that could not even be parsed."""
        exchange = Exchange(self, request)
        exchange.answer_error(error)
        exchange.report()
        return exchange.caller.outcome
