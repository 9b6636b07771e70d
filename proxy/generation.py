"""What one configuration makes at run time: credentials and routes. A reload makes the next one."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy import credentials
from proxy.addresses import parse_listen
from proxy.admin.metrics import RouteState, TokenState
from proxy.credentials import Passthrough
from proxy.guard import Guard, is_wildcard
from proxy.identity import Callers, Keys
from proxy.limits import Bounds
from proxy.route import Route, Timeouts
from proxy.routing import Prefixes
from proxy.tls import ListenerTls, TlsError
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from proxy.values import NO_CREDENTIAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from proxy.addresses import Listen
    from proxy.clock import Clock
    from proxy.config.settings import Route as RouteSettings
    from proxy.config.settings import Settings
    from proxy.credentials.base import Credential
    from proxy.rotation import Values

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """What tells listeners apart: their address, and their route's name where the port is 0."""

    listen: Listen
    route: str


def place(route: str, listen: Listen) -> Place:
    """Return where a route listens: with port 0 it has a listener of its own."""
    own = listen.path is None and listen.port == 0
    return Place(listen, route if own else "")


class Generation(NamedTuple):
    """The credentials and routes of one configuration."""

    settings: Settings
    credentials: dict[str, Credential]
    routes: dict[str, Route]
    keys: Keys
    tls: dict[Listen, ListenerTls]

    def by_place(self) -> dict[Place, list[tuple[str, Route]]]:
        """Group routes by where they are asked for, with their prefixes."""
        grouped: dict[Place, list[tuple[str, Route]]] = {}
        for name, route in self.settings.routes.items():
            at = place(name, route.listen)
            grouped.setdefault(at, []).append((route.prefix, self.routes[name]))
        return grouped

    def guard(self, listen: Listen) -> Guard:
        """Make the guard of one listener: its own address is one of the names it goes by."""
        return Guard(self._names(listen), [origin.root for origin in self.settings.access.origins])

    def admin_guard(self, listen: Listen) -> Guard:
        """Make the guard of the admin pages: a web page that may call routes may not end them."""
        return Guard(self._names(listen))

    def callers(self, listen: Listen) -> Callers | None:
        """Make what tells who calls at one listener; None where nobody has to be known.

        All have to be where any may be: by keys everywhere, by users on unix sockets, by
        certificates where the listener asks for one. Where a route names callers and there is no
        way to tell, which `config.load` refuses, nobody is served.
        """
        uids = self.settings.access.uids if listen.path is not None else ()
        tls = self.settings.listener(listen).tls
        certificates = tls is not None and tls.client_ca is not None
        routes, admin = self.settings.routes.values(), self.settings.admin
        named = any(route.callers for route in routes if route.listen == listen)
        named = named or (admin.callers is not None and admin.listen == listen)
        if not (self.settings.access.keys or uids or certificates or named):
            return None
        return Callers(self.keys, uids, certificates=certificates)

    def _names(self, listen: Listen) -> list[str]:
        own = [listen.host] if listen.host and not is_wildcard(listen.host) else []
        return [*self.settings.access.hosts, *own]

    @property
    def in_flight(self) -> int:
        """Count the requests that are being served."""
        return sum(route.in_flight for route in self.routes.values())

    def route_states(self) -> Iterator[RouteState]:
        """List the routes as they are at the moment."""
        for name, route in self.routes.items():
            yield RouteState(name, route.in_flight, route.pool.counts())

    def token_states(self, wall_ms: int) -> Iterator[TokenState]:
        """List the tokens as they are at the moment, which is `wall_ms` since the epoch."""
        for name, credential in self.credentials.items():
            left = credential.token_expires_in()
            if left is not None:
                yield TokenState(name, wall_ms / 1000 + left)

    def rekey(self, values: Values) -> None:
        """Let credentials, and callers' keys, take new values of secrets."""
        for name in {path[1] for path in values if path[0] == "credentials"}:
            if name in self.credentials:
                self.credentials[name].rekey()
        keys = {path[2]: value for path, value in values.items() if path[:2] == ("access", "keys")}
        self.keys.renew(keys)

    async def set_socket_modes(self) -> None:
        """Give socket files the configured mode: a file that was open before may have another."""
        for route in self.settings.routes.values():
            if route.listen.path is not None:
                mode = int(route.socket_mode, 8)
                await asyncio.to_thread(os.chmod, route.listen.path, mode)

    async def refresh_certificates(self) -> None:
        """Read the certificates of listeners again where they have changed, for new connections."""
        for listen, tls in self.tls.items():
            try:
                if await asyncio.to_thread(tls.refresh):
                    logger.info("the certificates of %s were read again", listen)
            except TlsError as error:
                logger.warning("%s: %s; the old ones stay", listen, error)

    def troubles(self) -> dict[str, str]:
        """Say which credentials cannot authorise requests just now, and why."""
        found = {name: each.trouble() for name, each in self.credentials.items()}
        return {f"credential {name}": why for name, why in found.items() if why is not None}

    def describe(
        self,
        urls: Mapping[str, str],
        totals: Mapping[str, Mapping[str, int]],
        states: Mapping[str, RouteState],
    ) -> dict[str, Any]:
        """Describe routes and credentials in plain values, none of them secret.

        `urls`, `totals` and `states` are by route: where it listens, what it has counted, and how
        it is at the moment.
        """
        routes = [
            {
                "name": name,
                "listen": urls[name],
                "prefix": settings.prefix,
                "upstream": str(settings.upstream),
                "credential": settings.credential,
                "in_flight": states[name].in_flight,
                "upstream_connections": states[name].connections,
                **totals.get(name, {"requests": 0, "errors": 0}),
            }
            for name, settings in self.settings.routes.items()
        ]
        credentials = [
            {
                "name": name,
                "kind": credential.kind,
                "token_expires_in": _rounded(credential.token_expires_in()),
                "trouble": credential.trouble(),
            }
            for name, credential in self.credentials.items()
        ]
        return {"routes": routes, "credentials": credentials}

    def sweep(self, now: float) -> None:
        """See to deadlines; `now` is the clock's."""
        for route in self.routes.values():
            route.sweep(now)

    def enter(self) -> None:
        """Begin to serve."""
        for credential in self.credentials.values():
            credential.enter()

    def retire(self, successor: Generation) -> None:
        """Leave the place to a newer one: keep nothing that is not in use."""
        for credential in self.credentials.values():
            credential.retire(successor.credentials.values())
        for route in self.routes.values():
            route.pool.close()

    async def close(self) -> None:
        """Break off what is in flight."""
        for route in self.routes.values():
            route.pool.abort()
        for credential in self.credentials.values():
            await credential.close()


def bounds(settings: Settings) -> Bounds:
    """Return what callers of one process may hold."""
    limits = settings.limits
    return Bounds(
        header_bytes=limits.header_bytes,
        header_fields=limits.header_fields,
        request_line=limits.request_line,
        header_timeout=limits.header_timeout,
        connections=settings.share(limits.connections),
        per_caller=_each(settings, limits.connections_per_caller),
    )


def _each(settings: Settings, total: int | None) -> int | None:
    return None if total is None else settings.share(total)


async def build(settings: Settings, tools: credentials.Tools) -> Generation:
    """Make credentials and routes; SecretError or TlsError if a file cannot be used.

    PermissionError if a credential would go where it may not: `config.load` has refused such a
    configuration, and this is the second line, for settings that were made in another way.

    Secrets have been read by now (`config.resolve`); certificates are read here, those of routes
    in a thread. Nothing is in force before `Generation.enter`.
    """
    dialers, secured = await asyncio.to_thread(lambda: (_dialers(settings), _secured(settings)))
    used = {route.credential for route in settings.routes.values()}  # no login for the others
    built = {
        name: credentials.build(name, each, tools)
        for name, each in settings.credentials.items()
        if name in used
    }
    routes = {
        name: _route(
            name,
            route,
            _credential(name, settings, built),
            dialers[name],
            tools.clock,
            max_in_flight=_each(settings, route.max_in_flight),
            is_secure=route.listen in secured,
        )
        for name, route in settings.routes.items()
    }
    keys = Keys({name: secret.reveal() for name, secret in settings.access.keys.items()})
    generation = Generation(settings, built, routes, keys, secured)
    for sharing in generation.by_place().values():
        if len(sharing) > 1:
            neighbours = Prefixes(sharing)
            for _, route in sharing:
                route.neighbours = neighbours
    return generation


def _credential(name: str, settings: Settings, built: dict[str, Credential]) -> Credential:
    """Return what a route attaches."""
    route = settings.routes[name]
    if route.credential == NO_CREDENTIAL:
        return Passthrough(route.upstream)
    return built[route.credential]


def _dialers(settings: Settings) -> dict[str, Dialer]:
    return {
        name: Dialer(route.upstream, route.tls, route.via)
        for name, route in settings.routes.items()
    }


def _secured(settings: Settings) -> dict[Listen, ListenerTls]:
    return {
        parse_listen(at): ListenerTls(listener.tls)
        for at, listener in settings.listeners.items()
        if listener.tls is not None
    }


def _route(
    name: str,
    settings: RouteSettings,
    credential: Credential,
    dialer: Dialer,
    clock: Clock,
    *,
    max_in_flight: int | None,
    is_secure: bool,
) -> Route:
    timeout = settings.timeout
    return Route(
        name,
        upstream=settings.upstream,
        credential=credential,
        pool=Pool(dialer, now=clock.now, connect_timeout=timeout.connect),
        timeout=Timeouts(timeout.response, timeout.idle, timeout.total),
        prefix=settings.prefix,
        strip_prefix=settings.strip_prefix,
        allow=settings.allow,
        max_body=settings.max_body,
        scrub=settings.scrub,
        max_in_flight=max_in_flight,
        is_secure=is_secure,
        callers=None if settings.callers is None else frozenset(settings.callers),
    )


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
