"""The process that starts workers and serves nobody itself, but for the admin pages."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import pickle
from typing import TYPE_CHECKING, Any

from proxy import credentials, generation, sockets
from proxy.admin.metrics import Metrics
from proxy.app import TICK
from proxy.chores import Chores
from proxy.config.settings import Admin
from proxy.console import Console
from proxy.credentials.stamps import StampStore
from proxy.generation import place
from proxy.rotation import SECRETS_EVERY, SecretFiles
from proxy.tokens import TokenStore
from proxy.workers import lending, memory
from proxy.workers.crew import Crew, all_of
from proxy.workers.doors import Door
from proxy.workers.overview import Overview

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from proxy.clock import Clock
    from proxy.config.settings import Settings
    from proxy.generation import Generation, Place
    from proxy.listener import Listener
    from proxy.workers.hire import Hire
    from proxy.workers.member import Member

logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps `settings.workers` workers: `start`, then `run` until `stop`; `reload` in between.

    Secrets must have been read (`config.resolve`). `announce` writes the line that says `ready`,
    and returns when it is out.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        announce: Callable[[str], Awaitable[None]],
        hire: Hire,
    ) -> None:
        self._first = settings
        self._write_line = announce
        own = Metrics()
        self._tools = credentials.Tools(clock, TokenStore(clock), StampStore(clock), own)
        self._overview = Overview(self, own, clock)
        self._console = Console(self._overview, settings, own)
        self._memory = memory.make(settings.workers)
        self._doors: dict[Place, Door] = {}
        self._crew = Crew(
            clock, hire, brief=self._brief, lend=self._lend, leave=self._overview.leave
        )
        self._generation: Generation | None = None
        self._before: Generation | None = None  # what workers may still be finishing
        self._changing = asyncio.Lock()  # a reload; changed secrets; a worker that begins
        self._announced = False
        self._secret_files = SecretFiles()
        self._chores = Chores(clock)

    # Life.

    async def start(self) -> None:
        """Start all workers; SecretError, TlsError or OSError if it cannot be done."""
        try:
            async with self._changing:
                await self._install(self._first)
            self._chores.repeat(self._tick, TICK)
            self._chores.repeat(self._look_at_secrets, SECRETS_EVERY)
            await self._crew.start(self._first.workers)
        except BaseException:
            await self._close()
            raise
        if not self.stopping:
            self.do_meanwhile(self._announce())

    async def _announce(self) -> None:
        """Write that all is ready; only then may workers write to stdout as well."""
        await self._write_line(json.dumps({"event": "ready", **self.addresses()}) + "\n")
        self._announced = True
        self._crew.tell("log")

    def do_meanwhile(self, chore: Coroutine[Any, Any, None]) -> None:
        """Run a task for as long as the supervisor runs."""
        self._chores.start(chore)

    async def run(self) -> None:
        """Keep the workers until `stop`, then let them finish what is in flight."""
        await self._crew.stopped()
        _close(self._doors.values())
        await self._crew.drain()
        await self._close()

    def stop(self) -> None:
        """Begin to drain: not ready, nothing new accepted."""
        self._crew.stop()

    @property
    def stopping(self) -> bool:
        """Whether it drains."""
        return self._crew.stopping

    @property
    def members(self) -> Mapping[int, Member]:
        """The workers that there are just now, by number."""
        return self._crew.members

    async def reload(self, settings: Settings) -> None:
        """Go on with another configuration, in all workers or in none.

        Errors as `start`, and then the old one stays. The number of workers is as before.
        """
        async with self._changing:
            if self.stopping:
                return
            await self._install(settings)
        logger.info("the configuration was read again: %d routes", len(settings.routes))

    def addresses(self) -> dict[str, Any]:
        """Tell where each route and the admin pages are to be reached."""
        routes = self.current.settings.routes.items()
        return {
            "listeners": {
                name: self._doors[place(name, route.listen)].listen.url(
                    secure=route.listen in self.current.tls
                )
                for name, route in routes
            },
            "admin": self._console.url,
        }

    @property
    def current(self) -> Generation:
        """What is in force. Its routes serve nobody: they are there to have been checked."""
        assert self._generation is not None  # noqa: S101 - after start
        return self._generation

    async def _install(self, settings: Settings) -> None:
        """Put a configuration into force; what can fail comes before anything is changed."""
        new = await generation.build(settings, self._tools)
        fresh: dict[Place, Door] = {}
        opened: Listener | None = None
        asked = list(self.members.values())
        try:
            await self._bind(new, fresh)
            await new.set_socket_modes()
            opened = await self._console.open(new)
            await all_of(self._prepare(each, settings, fresh) for each in asked)
        except BaseException:
            for member in asked:
                member.channel.send("discard")
            if opened is not None:
                await opened.close()
            _close(fresh.values())
            await new.close()
            raise
        await self._enforce(new, fresh, opened)
        await all_of(member.enforce() for member in asked)

    async def _enforce(
        self, new: Generation, fresh: dict[Place, Door], opened: Listener | None
    ) -> None:
        new.enter()
        if self._before is not None:
            await self._before.close()
        self._before, self._generation = self._generation, new
        if self._before is not None:
            self._before.retire(new)
        self._crew.drain_within = new.settings.limits.drain
        self._doors |= fresh
        _close([self._doors.pop(at) for at in self._doors.keys() - new.by_place().keys()])
        await self._console.enforce(new, opened)

    async def _bind(self, new: Generation, fresh: dict[Place, Door]) -> None:
        """Bind the addresses that are not bound yet, into `fresh`."""
        for name, route in new.settings.routes.items():
            at = place(name, route.listen)
            if at not in self._doors and at not in fresh:
                with sockets.naming(f"routes.{name}.listen", route.listen):
                    mode = int(route.socket_mode, 8)
                    fresh[at] = await asyncio.to_thread(Door, route.listen, mode)

    async def _prepare(self, member: Member, settings: Settings, fresh: dict[Place, Door]) -> None:
        member.give(fresh)
        await member.prepare(_pack(settings))

    async def _close(self) -> None:
        await self._chores.close()
        await self._crew.close()
        _close(self._doors.values())
        await self._console.close()
        self._tools.tokens.close()
        for each in (self._before, self._generation):
            if each is not None:
                await each.close()
        os.close(self._memory)

    # What workers ask for.

    async def _brief(self, member: Member) -> None:
        """Tell a new worker what it has to know. A reload comes before this, or after."""
        async with self._changing:
            self._crew.members[member.number] = member
            if self.stopping:
                member.channel.close()  # without a supervisor it ends
                return
            member.give(self._doors)
            packed = {"settings": _pack(self.current.settings)}
            member.channel.send("start", packed, descriptor=self._memory)
            if self._announced:
                member.channel.send("log")

    async def _lend(self, question: dict[str, Any]) -> dict[str, Any]:
        lenders = [each for each in (self._generation, self._before) if each is not None]
        return await lending.lend(question, [c for g in lenders for c in g.credentials.values()])

    # The passing of time.

    async def _tick(self) -> None:
        self._console.sweep(asyncio.get_running_loop().time())
        self._tools.tokens.tick()

    async def _look_at_secrets(self) -> None:
        """Look whether a secret's file has changed, for all; certificates for the admin pages."""
        async with self._changing:
            await self.current.refresh_certificates()
            changed = await self._secret_files.changed(self.current.settings)
            if changed:
                self.current.rekey(changed)
                self._crew.tell("secrets", {"values": list(changed.items())})


def _pack(settings: Settings) -> str:
    """Write settings, secrets and all, for a worker: without the pages that are not its own."""
    own = settings.model_copy(update={"admin": Admin(listen=None)})
    return base64.b64encode(pickle.dumps(own)).decode()


def _close(doors: Iterable[Door]) -> None:
    for door in list(doors):
        door.close()
