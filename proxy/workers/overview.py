"""All workers as one: what the admin pages and the metrics of a supervisor tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy import __version__
from proxy.admin.metrics import Metrics, RouteState, TokenState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proxy.clock import Clock
    from proxy.generation import Generation
    from proxy.workers.member import Member

_WAIT_AT_MOST: Final = 1.0  # seconds for a worker that is too busy to report; its last one counts


class Company(Protocol):
    """The supervisor, as far as this looks into it."""

    @property
    def current(self) -> Generation:
        """What is in force; its credentials are those that log in."""
        ...

    @property
    def members(self) -> Mapping[int, Member]:
        """The workers that there are just now, by number."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether it drains."""
        ...

    def addresses(self) -> dict[str, Any]:
        """Tell where each route and the admin pages are to be reached."""
        ...

    def stop(self) -> None:
        """Begin to drain."""
        ...


class Overview:
    """Sums up all workers: those that there are, and those that there were.

    `own` is what the supervisor itself has counted: the logins.
    """

    def __init__(self, company: Company, own: Metrics, clock: Clock) -> None:
        self._company = company
        self._own = own
        self._clock = clock
        self._gone = Metrics()
        self._replaced: Counter[int] = Counter()
        self._silent: set[int] = set()

    def leave(self, member: Member) -> None:
        """Keep what a worker had counted when it ended."""
        if member.report:
            self._gone.add(member.report["figures"])
        self._replaced[member.number] += 1

    async def refresh(self) -> None:
        """Ask all workers how they are."""
        members = self._company.members.items()
        asked = {each.ask_for_report(): number for number, each in members if each.serves}
        if asked:
            _, late = await asyncio.wait(asked, timeout=_WAIT_AT_MOST)
            self._silent = {asked[each] for each in late}

    def stop(self) -> None:
        """Begin to drain."""
        self._company.stop()

    def troubles(self) -> dict[str, str]:
        """Say what keeps the proxy, any part of it, from being ready."""
        if self._company.stopping:
            return {"proxy": "it is draining"}
        found: dict[str, str] = {}
        members = self._company.members
        for number in range(1, self._company.current.settings.workers + 1):
            if number not in members or not members[number].serves:
                found[f"worker {number}"] = "it is not serving yet"
            elif number in self._silent:
                found[f"worker {number}"] = "it does not answer"
            else:
                found |= members[number].report.get("troubles", {})
        return found | self._company.current.troubles()

    def status(self) -> dict[str, Any]:
        """Describe the proxy in plain values, none of them secret."""
        urls, totals = self._company.addresses()["listeners"], self._metrics().totals()
        described = self._company.current.describe(urls, totals, self._by_route())
        return {"version": __version__, **described, "workers": list(self._workers())}

    def metrics_text(self) -> bytes:
        """Write the metrics of all in Prometheus's text format."""
        metrics = self._metrics()
        metrics.watch(self)
        return metrics.text()

    def route_states(self) -> Iterator[RouteState]:
        """List the routes of all workers as they are."""
        for state in self._company.current.route_states():
            yield state  # nothing is in flight here; but a route is told before it is used
        for member in self._company.members.values():
            for state in member.report.get("routes", []):
                yield RouteState(*state)

    def token_states(self) -> Iterator[TokenState]:
        """List the tokens, which the workers borrow from here."""
        yield from self._company.current.token_states(self._clock.wall_ms())

    def _metrics(self) -> Metrics:
        total = Metrics()
        reports = [each.report for each in self._company.members.values() if each.report]
        for figures in (
            self._own.figures(),
            self._gone.figures(),
            *(report["figures"] for report in reports),
        ):
            total.add(figures)
        return total

    def _by_route(self) -> dict[str, RouteState]:
        summed: dict[str, RouteState] = {}
        for name, in_flight, connections in self.route_states():
            before = summed.get(name, RouteState(name, 0, {}))
            both = {
                state: connections.get(state, 0) + before.connections.get(state, 0)
                for state in connections | before.connections
            }
            summed[name] = RouteState(name, before.in_flight + in_flight, both)
        return summed

    def _workers(self) -> Iterator[dict[str, Any]]:
        members = self._company.members
        for number in range(1, self._company.current.settings.workers + 1):
            member = members.get(number)
            yield {
                "number": number,
                "pid": member.process.pid if member else None,
                "serves": member is not None and member.serves,
                "replaced": self._replaced[number],
            }
