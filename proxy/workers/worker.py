"""A worker process: it serves as its supervisor says, and ends when that is gone."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pickle
import select
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from proxy import process
from proxy.addresses import Listen
from proxy.app import TICK, App, Post
from proxy.chores import Chores
from proxy.clock import SystemClock
from proxy.credentials.stamps import Share, StampStore
from proxy.generation import Place
from proxy.secrets import SecretError
from proxy.tls import TlsError
from proxy.tokens import TokenStore
from proxy.workers import memory
from proxy.workers.channel import Channel
from proxy.workers.lending import Borrower

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.app import Prepared
    from proxy.clock import Clock
    from proxy.config.settings import Settings
    from proxy.workers.channel import Message

logger = logging.getLogger(__name__)


class Outside(NamedTuple):
    """What a worker does to the process that it runs in."""

    write: Callable[[str], None]  # lines of the access log
    release: Callable[[], None]  # which may go out from now on
    set_level: Callable[[str], None]  # of the program's own log


def main() -> int:
    """Run a worker; the arguments are its number and its channel's descriptor."""
    process.keep_memory_private()
    number, descriptor = map(int, sys.argv[1:])
    name = f"worker {number}"
    process.set_up_logging("info", who=name)
    # All write to one stdout; so much in one go is never mixed with what others write.
    writer = process.StdoutWriter(at_most=select.PIPE_BUF, held=True)
    outside = Outside(
        writer.write, writer.release, lambda level: process.set_up_logging(level, who=name)
    )
    try:
        return process.run(_work(number, socket.socket(fileno=descriptor), outside))
    finally:
        writer.close()


async def _work(number: int, sock: socket.socket, outside: Outside) -> int:
    return await Worker(number, Channel(sock), clock=SystemClock(), outside=outside).run()


class Worker:
    """Does what its supervisor says, one thing after the other. `number` counts from 1."""

    def __init__(self, number: int, channel: Channel, *, clock: Clock, outside: Outside) -> None:
        self._number = number
        self._channel = channel
        self._clock = clock
        self._outside = outside
        self._sockets: dict[Place, socket.socket] = {}
        self._app: App | None = None
        self._prepared: Prepared | None = None
        self._serving: asyncio.Task[None] | None = None
        self._chores = Chores(clock)
        self._reports = 0
        self._told: object = None  # the last report

    async def run(self) -> int:
        """Serve until the supervisor says so or is gone; return the exit status."""
        async for message in self._channel.messages():
            await self._obey(message)
        if self._app is None or self._serving is None:
            return 1
        self._app.stop()
        await self._serving
        return 0

    async def _obey(self, message: Message) -> None:
        fields = message.fields
        match message.kind:
            case "socket":
                assert message.descriptor is not None  # noqa: S101 - as the supervisor sends it
                listen, route = fields["place"]
                sock = socket.socket(fileno=message.descriptor)
                sock.setblocking(False)
                self._sockets[Place(Listen(*listen), route)] = sock
            case "start":
                assert message.descriptor is not None  # noqa: S101 - as the supervisor sends it
                await self._start(_unpack(fields["settings"]), message.descriptor)
            case "prepare":
                failure = await self._prepare(_unpack(fields["settings"]))
                self._channel.answer(message, {"failure": failure})
            case "discard":
                await self._discard()
            case "enforce":
                await self._enforce()
                self._channel.answer(message, {"failure": None})
            case "secrets" if self._app is not None:
                self._app.take_secrets({tuple(path): value for path, value in fields["values"]})
            case "report" if self._app is not None:
                self._channel.answer(message, self._report(self._app))
            case "log":
                self._outside.release()
            case "drain" if self._app is not None:
                self._app.stop()

    async def _start(self, settings: Settings, memory_descriptor: int) -> None:
        """Begin to serve, or say why not and end."""
        self._outside.set_level(settings.log.level)
        used = memory.cell(memory_descriptor, self._number - 1)
        os.close(memory_descriptor)
        share = Share(self._number - 1, settings.workers, used)
        borrow = Borrower(self._channel, self._clock).fetch_for
        post = Post(
            TokenStore(self._clock, borrow=borrow), StampStore(self._clock, share), self._sockets
        )
        app = App(settings, clock=self._clock, write=self._outside.write, post=post)
        try:
            await app.start()
        except (SecretError, TlsError, OSError) as error:
            self._close_sockets()
            self._channel.send("failed", {"why": _text(error)})
            self._channel.close()
            return
        self._app = app
        self._serving = asyncio.create_task(self._serve(app))
        self._channel.send("ready")

    async def _serve(self, app: App) -> None:
        self._chores.repeat(self._report_what_is_new, TICK)
        await app.run()
        await self._chores.close()
        self._channel.send("report", self._report(app))
        self._channel.close()

    async def _prepare(self, settings: Settings) -> str | None:
        """Get ready for another configuration; return why that cannot be, None if it can."""
        assert self._app is not None  # noqa: S101 - it serves
        try:
            self._prepared = await self._app.prepare(settings)
        except (SecretError, TlsError, OSError) as error:
            return f"could not get ready: {_text(error)}"
        return None

    async def _discard(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and self._app is not None:
            await self._app.discard(prepared)
        self._close_sockets()

    def _close_sockets(self) -> None:
        """Close what no listener has taken."""
        while self._sockets:
            self._sockets.popitem()[1].close()

    async def _enforce(self) -> None:
        prepared, self._prepared = self._prepared, None
        assert prepared is not None  # noqa: S101 - the supervisor knows that it is
        assert self._app is not None  # noqa: S101
        await self._app.enforce(prepared)
        self._outside.set_level(prepared.generation.settings.log.level)

    async def _report_what_is_new(self) -> None:
        """Tell what has been counted, so that little is lost with a worker that is killed."""
        assert self._app is not None  # noqa: S101 - it serves
        now = self._app.report()
        if now != self._told and not self._channel.is_behind:
            self._told = now
            self._channel.send("report", self._report(self._app))

    def _report(self, app: App) -> dict[str, object]:
        self._reports += 1
        return {"serial": self._reports, **app.report()}


def _unpack(settings: str) -> Settings:
    """Read what `supervisor` has packed. It comes from there alone, over an inherited socket."""
    unpacked: Settings = pickle.loads(base64.b64decode(settings))  # noqa: S301
    return unpacked


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
