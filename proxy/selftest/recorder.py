"""A vendor's server that records every byte of what reaches it, and answers as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from proxy.selftest.wire import Fields, read_body, split_head, values

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Play = bytes | Callable[["Arrived", asyncio.StreamWriter], Awaitable[None]]

_LARGEST = 4 << 20  # bytes of a head


class Arrived:
    """A request, from its first byte on; `whole` once it has come to its end."""

    def __init__(self) -> None:
        self.start = b""
        self.fields: Fields = []
        self.body = bytearray()
        self.whole = False

    @property
    def target(self) -> str:
        """Give the target as it was spelled."""
        return b" ".join(self.start.split(b" ")[1:-1]).decode("latin-1")

    def all(self, name: str) -> list[str]:
        """Give every value of a field."""
        return [value.decode("latin-1") for value in values(self.fields, name.lower())]


class Recorder:
    """Listens on a free port of loopback. `plays` are answers by the request's `X-Play`.

    A play is the bytes of an answer, after which the connection goes on, or a function that writes
    them, after which it ends. `find` may choose another name for it.
    """

    def __init__(self, plays: Mapping[str, Play], find: Callable[[Arrived], str]) -> None:
        self.journal: list[Arrived] = []
        self.connections = 0
        self.port = 0
        self._plays = plays
        self._find = find
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Give its origin."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LARGEST)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            with contextlib.suppress(Exception):  # the loops differ in what has ended already
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.read(1)
        if not first:
            return False
        arrived = Arrived()
        self.journal.append(arrived)
        head = first + await reader.readuntil(b"\r\n\r\n")
        arrived.start, arrived.fields = split_head(head)
        arrived.whole = await read_body(reader, arrived.fields, arrived.body, to_end=False)
        if not arrived.whole:
            return False
        play = self._plays[self._find(arrived)]
        if isinstance(play, bytes):
            writer.write(play)
            await writer.drain()
            return True
        await play(arrived, writer)
        return False


def asked_for(arrived: Arrived) -> str:
    """Find a play by the field `X-Play`."""
    return (arrived.all("X-Play") or ["ok"])[0]


def of_login(arrived: Arrived) -> str:
    """Find a play by the first segment of the path, as `login_url` has it."""
    return arrived.target.split("/")[1]
