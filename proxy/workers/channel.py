"""What a supervisor and a worker say to each other, over a pair of connected unix sockets.

A message is four bytes of length and that much JSON; one may carry a descriptor. Tokens and
secrets pass here and nowhere else: not in arguments, the environment, files or logs.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_LENGTH: Final = struct.Struct("!I")
_LARGEST: Final = 64 << 20  # bytes; a configuration file has 1 MiB at most
_AT_ONCE: Final = 64 << 10
_ANSWER: Final = "answer"


class ChannelClosedError(Exception):
    """The other process is gone."""


class Message(NamedTuple):
    """One message. `number` is that of a question; `repr` shows nothing of the fields."""

    kind: str
    fields: dict[str, Any]
    number: int | None
    descriptor: int | None

    def __repr__(self) -> str:
        return f"Message({self.kind})"


class Channel:
    """One end. Sending never blocks: what the other end does not read yet waits in here."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self._numbers = count(1)
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.closed = False
        self._loop.add_reader(sock, self._read)

    @property
    def is_behind(self) -> bool:
        """Tell whether the other end has not taken all that was sent."""
        return bool(self._unsent)

    def send(
        self,
        kind: str,
        fields: Mapping[str, Any] | None = None,
        *,
        descriptor: int | None = None,
        number: int | None = None,
    ) -> None:
        """Send a message; into nowhere if the other process is gone. The descriptor is copied."""
        if self.closed:
            return
        message = {"kind": kind, "number": number, "fields": fields or {}}
        text = json.dumps(message | {"descriptor": descriptor is not None}).encode()
        copy = None if descriptor is None else os.dup(descriptor)
        self._unsent.append((memoryview(_LENGTH.pack(len(text)) + text), copy))
        if len(self._unsent) == 1:
            self._write()

    async def ask(self, kind: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a question and wait for its answer; ChannelClosedError if none will come."""
        if self.closed:
            raise ChannelClosedError
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._questions[number] = answer
        try:
            self.send(kind, fields, number=number)
            return await answer
        finally:
            self._questions.pop(number, None)

    def answer(self, question: Message, fields: Mapping[str, Any] | None = None) -> None:
        """Answer a question."""
        self.send(_ANSWER, fields, number=question.number)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what is said that is no answer, until the other process is gone."""
        while (message := await self._messages.get()) is not None:
            yield message

    def close(self) -> None:
        """Break it off. The other end notices."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._drop_unsent()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        for question in self._questions.values():
            if not question.done():
                question.set_exception(ChannelClosedError())
        self._messages.put_nowait(None)

    def _write(self) -> None:
        """Send what waits, as far as the other end takes it."""
        try:
            while self._unsent:
                data, descriptor = self._unsent[0]
                sent = socket.send_fds(
                    self._sock, [data], [] if descriptor is None else [descriptor]
                )
                if descriptor is not None:  # it goes with the first byte
                    os.close(descriptor)
                if sent < len(data):
                    self._unsent[0] = (data[sent:], None)
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._write)
        except OSError:
            # The other process is gone. What it said before that is still to be read.
            self._drop_unsent()
            self._loop.remove_writer(self._sock)
        else:
            self._loop.remove_writer(self._sock)

    def _drop_unsent(self) -> None:
        while self._unsent:
            _, descriptor = self._unsent.popleft()
            if descriptor is not None:
                os.close(descriptor)

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _AT_ONCE, 16)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        self._received += data
        if not data or not self._take_messages():
            self.close()

    def _take_messages(self) -> bool:
        """Hand on what has come whole; False if it makes no sense."""
        while len(self._received) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._received)
            if size > _LARGEST:
                return False
            end = _LENGTH.size + size
            if len(self._received) < end:
                break
            try:
                self._take(json.loads(self._received[_LENGTH.size : end]))
            except (ValueError, LookupError, TypeError):
                return False
            del self._received[:end]
        return True

    def _take(self, message: dict[str, Any]) -> None:
        kind, number, fields = message["kind"], message["number"], message["fields"]
        if kind == _ANSWER:
            question = self._questions.get(number)
            if question is not None and not question.done():
                question.set_result(fields)
            return
        descriptor = self._descriptors.popleft() if message["descriptor"] else None
        self._messages.put_nowait(Message(kind, fields, number, descriptor))
