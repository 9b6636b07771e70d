"""The running proxy: settings → credentials, routes, listeners; reload, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from proxy import __version__, credentials, generation
from proxy.accesslog import AccessLog
from proxy.admin.metrics import Metrics, RouteState, TokenState
from proxy.admin.pages import AdminPages
from proxy.body import Budget
from proxy.credentials.stamps import StampStore
from proxy.forward import Forwarder
from proxy.generation import place
from proxy.observe import Observers
from proxy.routing import Prefixes
from proxy.secrets import SecretError
from proxy.server import Listener, Room
from proxy.tokens import TokenStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from proxy.addresses import Listen
    from proxy.clock import Clock
    from proxy.config.settings import Route as RouteSettings
    from proxy.config.settings import Settings
    from proxy.generation import Generation, Place

logger = logging.getLogger(__name__)

_TICK = 0.25  # seconds between looks at deadlines and due renewals
_SECRETS_EVERY = 2.0  # seconds between looks at secret files
_ADMIN_CONNECTIONS = 100
_DRAIN_STEP = 0.02  # seconds between looks at what is still in flight


class App:
    """One proxy process: `start`, then `run` until `stop`; `reload` in between.

    Secrets must have been read (`config.resolve`). `write` takes the lines of the access log.
    """

    def __init__(self, settings: Settings, *, clock: Clock, write: Callable[[str], None]) -> None:
        self._clock = clock
        self._log = AccessLog(write, enabled=settings.log.access)
        self._metrics = Metrics()
        self._metrics.watch(self)
        self._observer = Observers([self._log, self._metrics])
        self._tools = credentials.Tools(clock, TokenStore(clock), StampStore(clock), self._observer)
        self._first = settings
        self._budget = Budget()
        self._room = Room(settings.limits.connections)
        self._listeners: dict[Place, Listener] = {}
        self._admin: tuple[Listen, Listener] | None = None
        self._generation: Generation | None = None
        self._retired: list[Generation] = []
        self._leaving: list[Listener] = []
        self._unreadable: set[tuple[object, ...]] = set()
        self._installing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._chores: list[asyncio.Task[None]] = []

    # Life.

    async def start(self) -> None:
        """Build everything and accept; SecretError, TlsError or OSError if it cannot be done."""
        try:
            async with self._installing:
                await self._install(self._first)
        except BaseException:
            await self._close()
            raise
        self.do_meanwhile(self._repeat(self._tick, _TICK))
        self.do_meanwhile(self._repeat(self._reload_secrets, _SECRETS_EVERY))
        self._log.announce({"event": "ready", **self.addresses()})

    def do_meanwhile(self, chore: Coroutine[Any, Any, None]) -> None:
        """Run a task for as long as the proxy runs."""
        self._chores.append(asyncio.create_task(chore))

    async def run(self) -> None:
        """Serve until `stop`, then finish what is in flight."""
        await self._stopping.wait()
        await self._drain()
        await self._close()

    def stop(self) -> None:
        """Begin to drain: not ready, nothing new accepted."""
        self._stopping.set()

    async def reload(self, settings: Settings) -> None:
        """Go on with another configuration; errors as `start`, and then the old one stays."""
        async with self._installing:
            if self._stopping.is_set():
                return
            await self._install(settings)
        self._log.enabled = settings.log.access
        self._room.at_most = settings.limits.connections
        logger.info("the configuration was read again: %d routes", len(settings.routes))

    def addresses(self) -> dict[str, Any]:
        """Tell where each route and the admin pages are to be reached."""
        routes = self._current.settings.routes.items()
        return {
            "listeners": {name: self._at(name, route).url for name, route in routes},
            "admin": self._admin[1].url if self._admin else None,
        }

    @property
    def _current(self) -> Generation:
        assert self._generation is not None  # noqa: S101 - after start
        return self._generation

    async def _install(self, settings: Settings) -> None:
        """Put a configuration into force; what can fail comes before anything is changed."""
        new = await generation.build(settings, self._tools)
        try:
            fresh, admin = await self._open(new)
        except BaseException:
            await new.close()
            raise
        new.enter()
        old, self._generation = self._generation, new
        self._listeners |= fresh
        for at, routes in new.by_place().items():
            forwarder = self._listeners[at].handler
            assert isinstance(forwarder, Forwarder)  # noqa: S101 - as _open made it
            forwarder.guard, forwarder.routes = new.guard(at.listen), Prefixes(routes)
            self._listeners[at].header_timeout = settings.limits.header_timeout
        before, self._admin = self._admin, admin
        if before is not None and before is not admin:
            await before[1].close()
        for at in self._listeners.keys() - new.by_place().keys():
            self._stop_accepting(self._listeners.pop(at))
        if old is not None:
            old.retire(new)
            self._retired.append(old)

    async def _open(
        self, new: Generation
    ) -> tuple[dict[Place, Listener], tuple[Listen, Listener] | None]:
        """Open the addresses that are not open yet: all of them, or none."""
        fresh: dict[Place, Listener] = {}
        routes = new.by_place()
        try:
            for name, route in new.settings.routes.items():
                at = place(name, route.listen)
                if at not in self._listeners and at not in fresh:
                    forwarder = Forwarder(
                        new.guard(route.listen),
                        Prefixes(routes[at]),
                        budget=self._budget,
                        clock=self._clock,
                        observer=self._observer,
                    )
                    listener = self._listener(route.listen, forwarder, new.settings)
                    await _start(listener, f"routes.{name}.listen", int(route.socket_mode, 8))
                    fresh[at] = listener
            await self._set_socket_modes(new.settings)
            admin = await self._open_admin(new)
        except BaseException:
            for listener in fresh.values():
                await listener.close()
            raise
        return fresh, admin

    async def _open_admin(self, new: Generation) -> tuple[Listen, Listener] | None:
        listen = new.settings.admin.listen
        if listen is None:
            return None
        if self._admin is not None and self._admin[0] == listen:
            pages = self._admin[1].handler
            assert isinstance(pages, AdminPages)  # noqa: S101 - as made below
            pages.guard = new.admin_guard(listen)
            return self._admin
        listener = self._listener(listen, AdminPages(self, new.admin_guard(listen)), new.settings)
        await _start(listener, "admin.listen", 0o600)
        return listen, listener

    def _at(self, name: str, route: RouteSettings) -> Listener:
        return self._listeners[place(name, route.listen)]

    def _listener(
        self, listen: Listen, handler: Forwarder | AdminPages, settings: Settings
    ) -> Listener:
        # Health must be told even when callers hold every connection there is.
        room = self._room if isinstance(handler, Forwarder) else Room(_ADMIN_CONNECTIONS)
        return Listener(listen, handler, room=room, header_timeout=settings.limits.header_timeout)

    async def _drain(self) -> None:
        """Finish what is in flight, for `limits.drain` seconds at most."""
        logger.debug("draining")
        for listener in self._listeners.values():
            self._stop_accepting(listener)
        until = self._clock.now() + self._current.settings.limits.drain
        while not self._all_left() and self._clock.now() < until:
            await self._clock.sleep(_DRAIN_STEP)
        in_flight = sum(each.in_flight for each in self._generations())
        if in_flight:
            logger.warning("%d requests were still in flight after the drain", in_flight)

    async def _close(self) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        admin = [self._admin[1]] if self._admin else []
        for listener in [*self._listeners.values(), *self._leaving, *admin]:
            await listener.close()
        self._tools.tokens.close()
        for each in self._generations():
            await each.close()
        self._log.flush()

    # The passing of time.

    async def _repeat(self, chore: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await chore()
            except Exception:  # one failure must not be the end of it
                logger.exception("a chore failed")
            await self._clock.sleep(seconds)

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        admin = [self._admin[1]] if self._admin else []
        for listener in [*self._listeners.values(), *self._leaving, *admin]:
            listener.sweep(now)
        self._all_left()
        for each in self._generations():
            each.sweep(self._clock.now())
        self._tools.tokens.tick()
        self._log.flush()
        for old in [each for each in self._retired if not each.in_flight]:
            self._retired.remove(old)
            await old.close()

    async def _reload_secrets(self) -> None:
        """Look whether a secret's file has changed; what cannot be read keeps its old value."""
        current = self._current
        changed: set[str] = set()
        for path, secret in current.settings.secrets():
            try:
                if await asyncio.to_thread(secret.reload):
                    changed.add(path[1])
                    logger.info("%s was read again", ".".join(map(str, path)))
                self._unreadable.discard(path)
            except SecretError as error:
                if path not in self._unreadable:
                    logger.warning("%s: %s; the old value stays", ".".join(map(str, path)), error)
                self._unreadable.add(path)
        if current is not self._generation:
            return  # a reload has read them meanwhile
        for name in changed & current.credentials.keys():
            current.credentials[name].rekey()

    # What the admin pages and metrics see.

    def troubles(self) -> dict[str, str]:
        """Say what keeps the proxy from being ready."""
        if self._stopping.is_set():
            return {"proxy": "it is draining"}
        return self._current.troubles()

    def status(self) -> dict[str, Any]:
        """Describe the proxy in plain values, none of them secret."""
        urls, totals = self.addresses()["listeners"], self._metrics.totals()
        return {"version": __version__, **self._current.describe(urls, totals)}

    def metrics_text(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        return self._metrics.text()

    def route_states(self) -> Iterator[RouteState]:
        """List the routes as they are."""
        for each in self._generations():  # a route of an older one may still be busy
            for name, route in each.routes.items():
                yield RouteState(name, route.in_flight, route.pool.counts())

    def token_states(self) -> Iterator[TokenState]:
        """List the tokens as they are."""
        for name, credential in self._current.credentials.items():
            left = credential.token_expires_in()
            if left is not None:
                yield TokenState(name, self._clock.wall_ms() / 1000 + left)

    def _generations(self) -> list[Generation]:
        return [*self._retired, *([self._generation] if self._generation else [])]

    async def _set_socket_modes(self, settings: Settings) -> None:
        """Give socket files the configured mode: a file that was open before may have another."""
        for route in settings.routes.values():
            if route.listen.path is not None:
                mode = int(route.socket_mode, 8)
                await asyncio.to_thread(os.chmod, route.listen.path, mode)

    def _stop_accepting(self, listener: Listener) -> None:
        if isinstance(listener.handler, Forwarder):
            listener.handler.draining = True
        listener.stop_accepting()
        self._leaving.append(listener)

    def _all_left(self) -> bool:
        """Let listeners that accept no more close what is idle; True once no caller is left."""
        self._leaving = [listener for listener in self._leaving if not listener.close_idle()]
        return not self._leaving


async def _start(listener: Listener, key: str, socket_mode: int) -> None:
    try:
        await listener.start(socket_mode=socket_mode)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OSError(
            error.errno or 0, f"{key}: cannot listen on {listener.listen}: {why}"
        ) from None
