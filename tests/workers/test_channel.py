"""The channel: messages arrive whole and in order, and a broken one is noticed."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from proxy.workers.channel import Channel, ChannelClosedError, Message
from tests.support import PATIENCE, settle, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Pair = tuple[Channel, Channel]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


async def next_of(channel: Channel) -> Message:
    async with asyncio.timeout(PATIENCE):
        return await anext(channel.messages())


async def rest_of(channel: Channel) -> list[Message]:
    async with asyncio.timeout(PATIENCE):
        return [message async for message in channel.messages()]


async def test_messages_come_in_order_whatever_their_size(pair: Pair) -> None:
    one, other = pair
    sizes = [1, 5_000_000, 0, 300_000, 7]
    for size in sizes:
        one.send("piece", {"text": "x" * size})
    assert one.is_behind
    assert [len((await next_of(other)).fields["text"]) for _ in sizes] == sizes
    assert not one.is_behind


async def test_a_descriptor_comes_with_its_own_message(pair: Pair) -> None:
    one, other = pair
    one.send("filler", {"text": "x" * 2_000_000})  # so that the next ones have to wait
    pipes = [os.pipe() for _ in range(3)]
    for number, (_, end) in enumerate(pipes):
        one.send("without")
        one.send("with", {"number": number}, descriptor=end)
        os.close(end)  # it has been copied
    for number in range(3):
        while (message := await next_of(other)).kind != "with":
            assert message.descriptor is None
        assert message.fields == {"number": number}
        assert message.descriptor is not None
        os.write(message.descriptor, b"%d" % number)
        os.close(message.descriptor)
    for number, (end, _) in enumerate(pipes):
        assert os.read(end, 10) == b"%d" % number
        os.close(end)


async def test_each_question_gets_its_own_answer(pair: Pair) -> None:
    one, other = pair
    asked = [asyncio.create_task(one.ask("double", {"of": number})) for number in range(10)]
    questions = [await next_of(other) for _ in asked]
    for question in reversed(questions):
        other.answer(question, {"is": 2 * question.fields["of"]})
    assert [(await each)["is"] for each in asked] == [2 * number for number in range(10)]


async def test_a_question_to_whom_nobody_listens_any_more_gets_no_answer(pair: Pair) -> None:
    one, other = pair
    asked = asyncio.create_task(one.ask("anybody"))
    await settle()
    asked.cancel()
    other.answer(await next_of(other), {})
    other.send("after")
    assert (await next_of(one)).kind == "after"


async def test_when_the_other_end_goes_what_it_said_is_still_heard(pair: Pair) -> None:
    one, other = pair
    asked = asyncio.create_task(one.ask("question"))
    await settle()
    other.send("last words")
    other.close()
    one.send("into nowhere")
    assert [message.kind for message in await rest_of(one)] == ["last words"]
    with pytest.raises(ChannelClosedError):
        await asked
    with pytest.raises(ChannelClosedError):
        await one.ask("question")
    one.send("nothing happens")


async def test_what_waits_to_be_sent_is_let_go_with_the_channel(pair: Pair) -> None:
    one, other = pair
    one.send("filler", {"text": "x" * 2_000_000})
    end, kept = os.pipe()
    one.send("with", descriptor=kept)
    os.close(kept)
    other.close()
    one.close()
    assert os.read(end, 1) == b""  # no copy of it is left
    os.close(end)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x03abc",
        b'\x00\x00\x00\x40{"kind": "socket", "number": null, "fields": {}, "descriptor": 1}   ',
    ],
)
async def test_nonsense_breaks_the_channel(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.sendall(nonsense)
    assert await rest_of(channel) == []
    await until(lambda: channel.closed)
    theirs.close()


async def test_a_message_shows_nothing_of_its_fields() -> None:
    assert repr(Message("token", {"value": "canary"}, 1, None)) == "Message(token)"
