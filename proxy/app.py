"""The running proxy: settings → credentials, routes, listeners; reload, drain, stop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy import __version__, credentials, generation, sockets
from proxy.accesslog import AccessLog
from proxy.admin.metrics import Metrics
from proxy.body import Budget
from proxy.chores import Chores
from proxy.console import Console
from proxy.credentials.stamps import StampStore
from proxy.forward import Forwarder
from proxy.generation import Generation, place
from proxy.limits import Limits
from proxy.listener import Listener
from proxy.observe import Observers
from proxy.rotation import SECRETS_EVERY, SecretFiles
from proxy.routing import Prefixes
from proxy.tokens import TokenStore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from proxy.admin.metrics import RouteState, TokenState
    from proxy.clock import Clock
    from proxy.config.settings import Route as RouteSettings
    from proxy.config.settings import Settings
    from proxy.generation import Place
    from proxy.rotation import Values

logger = logging.getLogger(__name__)

TICK = 0.25  # seconds between looks at deadlines and due renewals
_DRAIN_STEP = 0.02  # seconds between looks at what is still in flight


class Post(NamedTuple):
    """What a worker has from its supervisor (`proxy.workers`), and does not do by itself."""

    tokens: TokenStore
    stamps: StampStore
    sockets: dict[Place, socket.socket]  # bound; each is taken when its listener opens


class Prepared(NamedTuple):
    """A configuration that can be put into force."""

    generation: Generation
    fresh: dict[Place, Listener]
    admin: Listener | None


class App:
    """One process that serves: `start`, then `run` until `stop`; `reload` in between.

    Secrets must have been read (`config.resolve`). `write` takes the lines of the access log.
    With a `post` it is one of several, and its supervisor says when.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        write: Callable[[str], None],
        post: Post | None = None,
    ) -> None:
        self._clock = clock
        self._post = post
        self._log = AccessLog(write, enabled=settings.log.access)
        self._metrics = Metrics()
        self._metrics.watch(self)
        self._observer = Observers([self._log, self._metrics])
        tokens, stamps = post[:2] if post else (TokenStore(clock), StampStore(clock))
        self._tools = credentials.Tools(clock, tokens, stamps, self._observer)
        self._first = settings
        self._budget = Budget()
        self._limits = Limits(generation.bounds(settings), self._observer.limited)
        self._listeners: dict[Place, Listener] = {}
        self._console = Console(self, settings, self._observer)
        self._generation: Generation | None = None
        self._retired: list[Generation] = []
        self._leaving: list[Listener] = []
        self._secret_files = SecretFiles()
        self._installing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._chores = Chores(clock)

    # Life.

    async def start(self) -> None:
        """Build everything and accept; SecretError, TlsError or OSError if it cannot be done."""
        try:
            async with self._installing:
                await self.enforce(await self.prepare(self._first))
        except BaseException:
            await self._close()
            raise
        self._chores.repeat(self._tick, TICK)
        self._chores.repeat(self._look_at_files, SECRETS_EVERY)
        if self._post is None:
            self._log.announce({"event": "ready", **self.addresses()})

    def do_meanwhile(self, chore: Coroutine[Any, Any, None]) -> None:
        """Run a task for as long as the proxy runs."""
        self._chores.start(chore)

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
            await self.enforce(await self.prepare(settings))
        logger.info("the configuration was read again: %d routes", len(settings.routes))

    def addresses(self) -> dict[str, Any]:
        """Tell where each route and the admin pages are to be reached."""
        routes = self._current.settings.routes.items()
        return {
            "listeners": {name: self._at(name, route).url for name, route in routes},
            "admin": self._console.url,
        }

    @property
    def _current(self) -> Generation:
        assert self._generation is not None  # noqa: S101 - after start
        return self._generation

    async def prepare(self, settings: Settings) -> Prepared:
        """Build another configuration and open what it needs; errors as `start`.

        Nothing is changed by it: `enforce` or `discard` is what comes next.
        """
        new = await generation.build(settings, self._tools)
        fresh: dict[Place, Listener] = {}
        try:
            await self._open(new, fresh)
            if self._post is None:
                await new.set_socket_modes()
            return Prepared(new, fresh, await self._console.open(new))
        except BaseException:
            await self.discard(Prepared(new, fresh, None))
            raise

    async def discard(self, prepared: Prepared) -> None:
        """Let go of a configuration that is not to come into force."""
        for listener in prepared.fresh.values():
            await listener.close()
        await prepared.generation.close()

    async def enforce(self, prepared: Prepared) -> None:
        """Put a configuration into force."""
        new, settings = prepared.generation, prepared.generation.settings
        new.enter()
        old, self._generation = self._generation, new
        self._log.enabled = settings.log.access
        self._limits.bounds = generation.bounds(settings)
        self._listeners |= prepared.fresh
        for at, routes in new.by_place().items():
            forwarder = self._listeners[at].handler
            assert isinstance(forwarder, Forwarder)  # noqa: S101 - as _open made it
            forwarder.guard, forwarder.routes = new.guard(at.listen), Prefixes(routes)
            forwarder.callers = new.callers(at.listen)
            self._listeners[at].tls = new.tls.get(at.listen)
        await self._console.enforce(new, prepared.admin)
        for at in self._listeners.keys() - new.by_place().keys():
            self._stop_accepting(self._listeners.pop(at))
        if old is not None:
            old.retire(new)
            self._retired.append(old)

    async def _open(self, new: Generation, fresh: dict[Place, Listener]) -> None:
        """Open the addresses that are not open yet, into `fresh`."""
        routes = new.by_place()
        for name, route in new.settings.routes.items():
            at = place(name, route.listen)
            if at in self._listeners or at in fresh:
                continue
            forwarder = Forwarder(
                new.guard(route.listen),
                Prefixes(routes[at]),
                callers=new.callers(route.listen),
                budget=self._budget,
                clock=self._clock,
                observer=self._observer,
            )
            tls = new.tls.get(route.listen)
            listener = Listener(route.listen, forwarder, self._limits, tls)
            bound = self._post.sockets.pop(at) if self._post else None
            with sockets.naming(f"routes.{name}.listen", route.listen):
                await listener.start(sock=bound, socket_mode=int(route.socket_mode, 8))
            fresh[at] = listener

    def _at(self, name: str, route: RouteSettings) -> Listener:
        return self._listeners[place(name, route.listen)]

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
        await self._chores.close()
        for listener in [*self._listeners.values(), *self._leaving]:
            await listener.close()
        await self._console.close()
        self._tools.tokens.close()
        for each in self._generations():
            await each.close()
        self._log.flush()

    # The passing of time.

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        for listener in [*self._listeners.values(), *self._leaving]:
            listener.sweep(now)
        self._console.sweep(now)
        self._limits.tell(now)
        self._all_left()
        for each in self._generations():
            each.sweep(self._clock.now())
        self._tools.tokens.tick()
        self._log.flush()
        for old in [each for each in self._retired if not each.in_flight]:
            self._retired.remove(old)
            await old.close()

    async def _look_at_files(self) -> None:
        """Look whether a certificate of a listener, or a secret's file, has changed."""
        await self._current.refresh_certificates()
        if self._post is None:
            await self._reload_secrets()

    async def _reload_secrets(self) -> None:
        current = self._current
        changed = await self._secret_files.changed(current.settings)
        if current is self._generation:  # else a reload has read them meanwhile
            current.rekey(changed)

    def take_secrets(self, values: Values) -> None:
        """Go on with secrets that the supervisor has read."""
        for path, secret in self._current.settings.secrets():
            if path in values:
                secret.renew(values[path])
        self._current.rekey(values)

    # What the admin pages and metrics see.

    async def refresh(self) -> None:
        """Do nothing: what is told here is always up to date."""

    def troubles(self) -> dict[str, str]:
        """Say what keeps the proxy from being ready."""
        if self._stopping.is_set():
            return {"proxy": "it is draining"}
        return self._current.troubles()

    def status(self) -> dict[str, Any]:
        """Describe the proxy in plain values, none of them secret."""
        urls, totals = self.addresses()["listeners"], self._metrics.totals()
        states = {state.name: state for state in self._current.route_states()}
        return {"version": __version__, **self._current.describe(urls, totals, states)}

    def metrics_text(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        return self._metrics.text()

    def route_states(self) -> Iterator[RouteState]:
        """List the routes as they are."""
        for each in self._generations():  # a route of an older one may still be busy
            yield from each.route_states()

    def token_states(self) -> Iterator[TokenState]:
        """List the tokens as they are."""
        yield from self._current.token_states(self._clock.wall_ms())

    def report(self) -> dict[str, Any]:
        """Tell a supervisor all that its own pages and metrics are made of, in plain values."""
        return {
            "figures": self._metrics.figures(),
            "routes": list(self.route_states()),
            "troubles": self._current.troubles(),
        }

    def _generations(self) -> list[Generation]:
        return [*self._retired, *([self._generation] if self._generation else [])]

    def _stop_accepting(self, listener: Listener) -> None:
        if isinstance(listener.handler, Forwarder):
            listener.handler.draining = True
        listener.stop_accepting()
        self._leaving.append(listener)

    def _all_left(self) -> bool:
        """Let listeners that accept no more close what is idle; True once no caller is left."""
        self._leaving = [listener for listener in self._leaving if not listener.close_idle()]
        return not self._leaving
