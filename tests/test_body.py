"""Bodies: passed on as they come, kept while small, bounded all together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from proxy.body import KEEP_AT_MOST, Budget, RequestBody
from proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


BUDGET = Budget()


@pytest.fixture(autouse=True)
def balanced_budget() -> Iterator[None]:
    """Whatever a test keeps, it gives back."""
    BUDGET.at_most = 2**28
    yield
    assert BUDGET.kept == 0


def stream(*pieces: bytes, ended: bool = True) -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    reader = StreamReader(protocol, 2**30, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    if ended:
        reader.feed_eof()
    return reader


def late(*pieces: bytes, length: int | None = None, limit: int | None = None) -> RequestBody:
    """Make a body whose pieces come after its head."""
    reader = stream(ended=False)
    body = RequestBody(reader, length, limit=limit, budget=BUDGET, now=float)
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    return body


async def pieces(body: RequestBody) -> bytes:
    return b"".join([piece async for piece in each(body)])


async def each(body: RequestBody) -> AsyncIterator[bytes]:
    while piece := await body.next():
        yield piece


async def refusal(body: RequestBody) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await pieces(body)
    return caught.value


async def test_a_body_that_came_with_its_head_is_whole_at_once() -> None:
    body = RequestBody(stream(b"hello"), 5, limit=None, budget=BUDGET, now=float)
    assert body.whole == b"hello"
    assert await body.next() == b""
    assert (body.received, body.ended) == (5, True)
    body.forget()


async def test_a_request_without_body_has_an_empty_one() -> None:
    body = RequestBody(stream(ended=False), 0, limit=0, budget=BUDGET, now=float)
    assert body.whole == b""
    assert await body.read_whole() == b""
    assert await pieces(body) == b""


@pytest.mark.parametrize("length", [11, None])
async def test_a_body_is_whole_once_it_has_ended(length: int | None) -> None:
    body = late(b"hello", b" ", b"world", length=length)
    assert not body.ended
    assert await pieces(body) == b"hello world"
    assert body.whole == b"hello world"
    assert await body.read_whole() == b"hello world"
    assert body.received == 11
    body.forget()


async def test_what_was_read_is_part_of_the_whole() -> None:
    reader = stream(b"first,", ended=False)
    body = RequestBody(reader, None, limit=None, budget=BUDGET, now=float)
    assert await body.next() == b"first,"
    reader.feed_data(b"second")
    reader.feed_eof()
    assert await body.next() == b"second"
    assert await body.read_whole() == b"first,second"
    body.forget()


async def test_the_caller_is_invited_once_and_only_where_something_is_to_come() -> None:
    invited: list[int] = []
    here = RequestBody(
        stream(b"x"), 1, limit=None, budget=BUDGET, now=float, on_read=lambda: invited.append(1)
    )
    await here.read_whole()
    here.forget()
    assert invited == []
    reader = stream(ended=False)
    body = RequestBody(
        reader, 2, limit=None, budget=BUDGET, now=float, on_read=lambda: invited.append(1)
    )
    reading = asyncio.create_task(body.read_whole())
    await asyncio.sleep(0)
    assert invited == [1]
    reader.feed_data(b"a")
    await asyncio.sleep(0)
    reader.feed_data(b"b")
    reader.feed_eof()
    assert await reading == b"ab"
    assert invited == [1]
    body.forget()


@pytest.mark.parametrize("size", [KEEP_AT_MOST, KEEP_AT_MOST + 1])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_kept_up_to_a_mebibyte_and_passed_on_beyond(
    size: int, *, announced: bool
) -> None:
    data = b"x" * size
    body = late(data[:1000], data[1000:], length=size if announced else None)
    assert await pieces(body) == data
    assert body.whole == (data if size <= KEEP_AT_MOST else None)
    assert BUDGET.kept == (size if size <= KEEP_AT_MOST else 0)
    body.forget()


@pytest.mark.parametrize("announced", [True, False])
async def test_what_has_to_be_signed_and_is_too_long_is_refused(*, announced: bool) -> None:
    size = KEEP_AT_MOST + 1
    body = late(b"x" * size, length=size if announced else None)
    with pytest.raises(ProxyError) as caught:
        await body.read_whole()
    assert (caught.value.code, caught.value.status) == ("body_too_large", 413)


async def test_an_announced_length_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(ProxyError) as caught:
        RequestBody(stream(ended=False), 11, limit=10, budget=BUDGET, now=float)
    assert caught.value.code == "body_too_large"
    assert "10 bytes" in caught.value.detail


async def test_a_body_that_grows_over_the_limit_is_refused() -> None:
    body = late(b"12345", b"67890", limit=10)
    assert await pieces(body) == b"1234567890"
    body.forget()
    body = late(b"12345678901", limit=10)
    assert (await refusal(body)).code == "body_too_large"
    with pytest.raises(ProxyError):
        RequestBody(stream(b"12345678901"), None, limit=10, budget=BUDGET, now=float)


async def test_all_kept_bodies_share_a_budget() -> None:
    BUDGET.at_most = 10
    first, second = late(b"123456"), late(b"12345")
    assert await pieces(first) == b"123456"
    assert await pieces(second) == b"12345"
    assert (first.whole, second.whole) == (b"123456", None)
    assert BUDGET.kept == 6
    first.forget()
    first.forget()
    third = late(b"12345")
    assert await pieces(third) == third.whole == b"12345"
    third.forget()


async def test_a_body_that_is_not_kept_still_passes() -> None:
    BUDGET.at_most = 3
    body = late(b"12", b"34", b"56")
    assert await pieces(body) == b"123456"
    assert body.whole is None


async def test_a_body_that_came_with_its_head_is_never_lost_to_a_full_budget() -> None:
    BUDGET.at_most = 3
    body = RequestBody(stream(b"123456"), 6, limit=None, budget=BUDGET, now=float)
    assert body.whole == b"123456"
    body.forget()


async def test_a_full_budget_is_our_limit_and_not_the_callers_fault() -> None:
    BUDGET.at_most = 3
    with pytest.raises(ProxyError) as caught:
        await late(b"1234", length=4).read_whole()
    assert (caught.value.code, caught.value.status) == ("overloaded", 503)
    assert caught.value.retry_after is not None


async def test_broken_chunks_are_a_bad_request_that_quotes_nothing() -> None:
    reader = stream(b"x", ended=False)
    body = RequestBody(reader, None, limit=None, budget=BUDGET, now=float)
    reader.set_exception(ValueError("canary-4711"))
    error = await refusal(body)
    assert error.code == "bad_request"
    assert "canary" not in error.detail
    body.forget()


async def test_a_caller_who_has_gone_is_no_bad_request() -> None:
    reader = stream(ended=False)
    body = RequestBody(reader, 5, limit=None, budget=BUDGET, now=float)
    reader.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await body.read_whole()
    assert body.whole is None


async def test_a_body_that_arrived_broken_is_refused() -> None:
    reader = stream(b"x")
    reader.set_exception(ValueError("canary-4711"))
    with pytest.raises(ProxyError) as caught:
        RequestBody(reader, None, limit=None, budget=BUDGET, now=float)
    assert caught.value.code == "bad_request"
