"""Connections that say exactly what they are told, and messages as they stand on the wire."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.selftest.case import GaveWayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

PATIENCE: Final = 5.0  # seconds for what has to come
_ENOUGH: Final = 0.3  # seconds for what must not come
_LARGEST: Final = 4 << 20  # bytes of a line or head

Fields = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """An answer as a caller read it; `whole` tells whether its body came to its announced end."""

    status: int
    fields: Fields
    body: bytes
    whole: bool

    def all(self, name: str) -> list[str]:
        """Give every value of a field."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    @property
    def code(self) -> str:
        """Give the code of the proxy's own answers, '' for an upstream's."""
        return ", ".join(self.all("X-Ekeko-Error"))

    @property
    def seen(self) -> str:
        """Describe it in short."""
        broken = "" if self.whole else ", broken off"
        return f"{self.status} {self.code or 'of the upstream'}{broken}"


class Line:
    """A caller's connection; `received` is every byte that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send, be it heard or not."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's, once it has ended
            self._writer.write(data)
            async with asyncio.timeout(PATIENCE):
                await self._writer.drain()

    def end(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def answer(self, method: str = "GET") -> Answer:
        """Read one final answer."""
        while True:
            status, fields = await self._head()
            if status >= 200 or status == 101:  # noqa: PLR2004 - what is less is interim
                break
        if method == "HEAD" or status in (101, 204, 304):
            return Answer(status, fields, b"", whole=True)
        body = bytearray()
        whole = await read_body(self._reader, fields, body, to_end=True)
        return Answer(status, fields, bytes(body), whole)

    async def _head(self) -> tuple[int, Fields]:
        head = await self._in_time(self._reader.readuntil(b"\r\n\r\n"))
        start, fields = split_head(head)
        parts = start.split(b" ")
        if len(parts) < 2 or not parts[1].isdigit():  # noqa: PLR2004 - version and status
            raise GaveWayError("what was answered is not HTTP")
        return int(parts[1]), fields

    async def _in_time(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await reading
        except (asyncio.IncompleteReadError, ConnectionError):
            raise GaveWayError("the connection ended without an answer") from None
        except (TimeoutError, asyncio.LimitOverrunError):
            raise GaveWayError(f"no whole answer within {PATIENCE:g} s") from None

    async def rest(self, seconds: float = _ENOUGH) -> bytes:
        """Read to the end of the connection, for so many seconds at most."""
        got = bytearray()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while piece := await self._reader.read(65536):
                    got += piece
        return bytes(got)

    async def ends(self, seconds: float = PATIENCE) -> bool:
        """Tell whether the other end ends the connection in time."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def drop(self) -> None:
        """End the connection at once."""
        with contextlib.suppress(Exception):  # the loops differ in what has ended already
            self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(address: str | tuple[str, int]) -> AsyncIterator[Line]:
    """Connect to the path of a unix socket, or to a host and port."""
    if isinstance(address, str):
        streams = await asyncio.open_unix_connection(address, limit=_LARGEST)
    else:
        streams = await asyncio.open_connection(*address, limit=_LARGEST)
    line = Line(*streams)
    try:
        yield line
    finally:
        line.drop()


def split_head(head: bytes) -> tuple[bytes, Fields]:
    """Split a head into its start line and its fields."""
    start, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return start, [(name, value.strip()) for name, _, value in pairs]


def values(fields: Fields, name: str) -> list[bytes]:
    """Give every value of a field, by its name in lower case."""
    return [value for key, value in fields if key.lower() == name.encode()]


async def read_body(
    reader: asyncio.StreamReader, fields: Fields, into: bytearray, *, to_end: bool
) -> bool:
    """Read a body into a buffer; tell whether it came to its end. `to_end`: an EOF may be that."""
    try:
        if values(fields, "transfer-encoding"):
            while size := int(await reader.readuntil(b"\r\n"), 16):
                into += await reader.readexactly(size)
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return True
        if lengths := values(fields, "content-length"):
            length = int(lengths[0])
            while len(into) < length:
                if not (piece := await reader.read(length - len(into))):
                    return False
                into += piece
            return True
        while to_end and (piece := await reader.read(65536)):
            into += piece
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        return False
    return True
