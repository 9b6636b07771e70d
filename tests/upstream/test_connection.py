"""One connection: exchanges, back-pressure, deadlines, and every way to fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy.errors import ProxyError
from proxy.upstream.connection import HIGH_WATER, Connection
from tests.stepping import MOMENTS, Cancelled
from tests.support import settle
from tests.upstream.support import Transport, head

if TYPE_CHECKING:
    from collections.abc import Callable

FAR_OFF = 1e12  # of the loop's seconds
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def connected() -> tuple[Connection, Transport, list[Connection]]:
    lost: list[Connection] = []
    loop = asyncio.get_running_loop()
    connection = Connection(loop, loop.time, lost.append)
    return connection, Transport(connection), lost


def asked() -> tuple[Connection, Transport]:
    """Have a connection on which a whole request has left."""
    connection, transport, _ = connected()
    connection.begin("GET")
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    connection.wrote_all = True
    return connection, transport


async def failure(connection: Connection) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await head(connection)
    return caught.value


async def test_an_exchange_leaves_a_connection_that_can_serve_another() -> None:
    connection, transport = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await head(connection)).status == 200
    assert connection.take() == [b"ok"]
    assert connection.end()
    assert not transport.aborted
    assert not connection.is_late(FAR_OFF)


async def test_reading_pauses_while_nobody_takes_what_came() -> None:
    connection, transport = asked()
    connection.data_received(HEAD + b"x" * HIGH_WATER)
    assert transport.events == []
    connection.data_received(b"x")
    assert transport.events == ["pause"]
    assert len(b"".join(connection.take())) == HIGH_WATER + 1
    assert transport.events == ["pause", "resume"]


async def test_an_answer_that_nobody_took_does_not_keep_the_next_one_from_being_read() -> None:
    """Its caller has gone when all of it is there, but some of it still waits for that caller."""
    connection, transport = asked()
    size = HIGH_WATER + 1
    transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size))
    assert transport.events == ["pause"]
    assert connection.end()
    assert connection.reader.size == 0
    connection.begin("GET")
    transport.feed(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert (await head(connection)).status == 201


async def test_an_orderly_end_is_waited_for_some_seconds() -> None:
    connection, transport = asked()
    connection.close()
    assert not connection.end()
    assert (transport.events, transport.aborted) == (["close"], False)
    assert not connection.is_late(connection._now() + 5)
    assert connection.is_late(connection._now() + 15)


async def test_writing_waits_while_the_upstream_takes_no_more() -> None:
    connection, _ = asked()
    await connection.drain(5)  # nothing to wait for
    connection.pause_writing()
    draining = asyncio.create_task(connection.drain(5))
    await settle()
    assert not draining.done()
    assert connection.is_late(FAR_OFF)
    connection.resume_writing()
    await draining
    assert not connection.is_late(FAR_OFF)


@pytest.mark.parametrize(
    "end",
    [
        lambda connection: connection.connection_lost(None),
        lambda connection: connection.connection_lost(ConnectionResetError()),
    ],
)
async def test_who_waits_is_told_when_the_connection_is_lost(
    end: Callable[[Connection], None],
) -> None:
    for waiting in ("head", "drain"):
        connection, _ = asked()
        connection.pause_writing()
        task = asyncio.ensure_future(head(connection) if waiting == "head" else connection.drain(5))
        await settle()
        end(connection)
        with pytest.raises(ProxyError) as caught:
            await task
        assert (caught.value.code, caught.value.sent) == ("upstream_closed", True)


async def test_a_close_before_anything_was_sent_says_so() -> None:
    connection, _, lost = connected()
    connection.connection_lost(None)
    assert lost == [connection]
    connection.begin("GET")
    with pytest.raises(ProxyError) as caught:
        connection.write(b"x")
    assert (caught.value.code, caught.value.sent) == ("upstream_closed", False)
    assert not connection.end()


async def test_a_close_within_an_answer_is_told_from_one_before_it() -> None:
    connection, _ = asked()
    connection.data_received(HEAD + b"part")
    assert (await head(connection)).length == 1_000_000
    connection.take()
    more = asyncio.create_task(connection.more(5))
    await settle()
    connection.connection_lost(None)
    with pytest.raises(ProxyError, match="within its answer"):
        await more


async def test_a_close_ends_an_answer_of_unknown_length_as_it_should() -> None:
    connection, _ = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    await head(connection)
    assert connection.take() == [b"all of it"]
    connection.connection_lost(None)
    await connection.more(5)
    assert connection.reader.complete
    assert not connection.end()


async def test_who_waits_is_told_of_the_close_that_ends_an_answer() -> None:
    connection, transport = asked()
    transport.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    more = asyncio.create_task(connection.more(5))
    await settle()
    transport.eof()
    await more
    assert connection.reader.complete


async def test_who_waits_is_told_of_a_failure_before_the_connection_has_ended() -> None:
    connection, transport = asked()
    waiter = connection.news()
    connection.fail(ProxyError("upstream_timeout", "late"))
    assert waiter.done()
    assert not transport.lost


async def test_a_reset_does_not_end_an_answer_of_unknown_length() -> None:
    connection, _ = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\npart")
    await head(connection)
    connection.take()
    connection.connection_lost(ConnectionResetError())
    with pytest.raises(ProxyError):
        await connection.more(5)


async def test_what_is_not_http_fails_the_exchange_and_shows_none_of_it() -> None:
    connection, transport = asked()
    connection.data_received(b"canary\r\n\r\n")
    error = await failure(connection)
    assert error.code == "upstream_protocol_error"
    assert "canary" not in error.detail
    assert transport.aborted


async def test_the_first_failure_is_the_one_that_counts() -> None:
    connection, _ = asked()
    connection.fail(ProxyError("upstream_timeout", "first"))
    connection.fail(ProxyError("upstream_closed", "second"))
    connection.connection_lost(None)
    assert (await failure(connection)).detail == "first"


async def test_data_after_a_failure_changes_nothing() -> None:
    connection, _ = asked()
    connection.fail(ProxyError("upstream_timeout", "late"))
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not connection.end()


async def test_data_on_an_idle_connection_ends_it() -> None:
    connection, transport, _ = connected()
    connection.data_received(b"x")
    assert transport.aborted
    assert connection.closed


async def test_an_end_of_stream_on_an_idle_connection_is_noticed_at_once() -> None:
    connection, _, _ = connected()
    connection.eof_received()
    assert connection.closed


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nextra",
    ],
)
async def test_a_connection_that_is_to_close_is_not_used_again(answer: bytes) -> None:
    connection, transport = asked()
    connection.data_received(answer)
    assert (await head(connection)).status == 200
    assert not connection.end()
    assert transport.aborted


async def test_an_answer_before_the_requests_end_costs_the_connection() -> None:
    connection, transport = asked()
    connection.wrote_all = False
    connection.data_received(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    assert (await head(connection)).status == 413
    assert not connection.end()
    assert transport.aborted


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("waiting", ["head", "more", "drain"])
async def test_an_exchange_cancelled_as_it_waits_leaves_no_deadline_and_no_error(
    waiting: str, moment: str
) -> None:
    connection, transport = asked()
    connection.pause_writing()
    if waiting != "head":
        transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    what = {"head": head(connection), "more": connection.more(5), "drain": connection.drain(5)}
    task = asyncio.ensure_future(Cancelled(what.pop(waiting), 1, moment))
    for other in what.values():
        other.close()
    await settle()
    if waiting == "head":
        transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    transport.feed(b"ok")
    connection.resume_writing()
    await asyncio.wait([task])
    assert task.cancelled()
    assert connection.end()
    assert not connection.is_late(FAR_OFF)
    connection.begin("GET")
    transport.feed(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert (await head(connection)).status == 201


async def test_a_wait_that_is_cancelled_leaves_no_trace() -> None:
    connection, _ = asked()
    waiting = asyncio.create_task(head(connection))
    await settle()
    waiting.cancel()
    await asyncio.wait([waiting])
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await head(connection)).status == 200
