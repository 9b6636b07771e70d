"""What a listener does with requests: each becomes an `Exchange`, by the rules of the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.exchange import Exchange, RequestIds

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from proxy.body import Budget
    from proxy.caller import Caller
    from proxy.clock import Clock
    from proxy.errors import ProxyError
    from proxy.guard import Guard
    from proxy.identity import Callers
    from proxy.observe import Observer
    from proxy.route import Route
    from proxy.routing import Prefixes


class Forwarder:
    """What one listener does with requests. `guard`, `callers` and `routes` change with a reload.

    `callers` is None where nobody has to be known.
    """

    def __init__(
        self,
        guard: Guard,
        routes: Prefixes[Route],
        *,
        callers: Callers | None,
        budget: Budget,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.guard = guard
        self.callers = callers
        self.routes = routes
        self.clock = clock
        self.observer = observer
        self.budget = budget
        self.ids = RequestIds()
        self.draining = False

    def handle(self, caller: Caller) -> Coroutine[Any, Any, None]:
        """Serve one request."""
        return Exchange(self, caller).run()

    def reject(self, caller: Caller, error: ProxyError) -> None:
        """Answer a request that could not even be parsed."""
        exchange = Exchange(self, caller)
        exchange.answer_error(error)
        exchange.report()
