"""Listeners: what callers may hold, and the files and addresses that they listen on."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import http_parser

from proxy import server
from tests.support import (
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    raw_client,
    request,
    settle,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.listener import Listener
    from proxy.server import CallerConnection
    from tests.support import Proxy, RawClient, UpstreamWire


def listener(proxy: Proxy) -> Listener:
    (only,) = proxy.app._listeners.values()
    return only


def in_seconds(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_there(path: Path) -> bool:
    return path.exists()


@pytest.fixture
def precious(sock: Path) -> Path:
    sock.write_text("precious")
    return sock


@pytest.fixture
def sock() -> Iterator[Path]:
    """A place for a socket; pytest's own folders are too deep for one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "p.sock"


async def test_nothing_is_served_by_a_parser_that_is_lax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(OSError, match="AIOHTTP_NO_EXTENSIONS"):
        async with plain_proxy("http://127.0.0.1:9"):
            pass


# Time for a head.


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (("Transfer-Encoding", "chunked"), b"2\r\nhi\r\n0\r\n\r\n"),
        (("Content-Length", "5"), b"hello"),
    ],
)
async def test_no_head_is_waited_for_behind_a_request_with_a_body(
    framing: tuple[str, str], body: bytes
) -> None:
    """aiohttp looks at its buffers once more when a body has been read, with nothing to read."""
    async with (
        ScriptedUpstream([answer()] * 2) as upstream,
        plain_proxy(upstream.url, {"limits": {"header_timeout": 20}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [framing]) + body)
        await client.answer()
        (caller,) = await connections(proxy, 1)
        await until(lambda: caller.is_idle)
        listener(proxy).sweep(in_seconds(25))
        assert (await client.ask("GET", "/")).status == 200


@pytest.mark.parametrize(
    "part", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "]
)
async def test_a_head_that_does_not_come_to_an_end_costs_the_connection(part: bytes) -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, {"limits": {"header_timeout": 20}}) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(part)
        (caller,) = await connections(proxy, 1)
        await until(lambda: caller._heard)
        listener(proxy).sweep(in_seconds(15))
        assert listener(proxy)._callers
        listener(proxy).sweep(in_seconds(25))
        assert (await client.answer()).status == 408
        assert await client.rest() == b""
        assert upstream.connections == []


async def test_a_second_head_has_as_much_time_as_the_first() -> None:
    async with (
        ScriptedUpstream([answer()] * 2) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/")).status == 200
        (caller,) = listener(proxy)._callers
        listener(proxy).sweep(in_seconds(1000))  # idle: nothing is due
        assert (await client.ask("GET", "/")).status == 200
        await client.send(b"GET ")
        await until(lambda: caller.head_since < float("inf"))
        listener(proxy).sweep(in_seconds(1000))
        assert (await client.answer()).status == 408


async def test_a_part_of_a_head_behind_a_request_has_as_much_time_as_any() -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer())
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/"))
        await until(lambda: upstream.connections)
        await client.send(b"GET /second HT")
        (caller,) = listener(proxy)._callers
        await until(lambda: caller._behind)
        may_answer.set()
        assert (await client.answer()).status == 200
        await until(lambda: caller.head_since < float("inf"))
        listener(proxy).sweep(in_seconds(1000))
        assert (await client.answer()).status == 408


async def test_a_caller_that_is_idle_for_more_than_an_hour_is_let_go() -> None:
    async with (
        ScriptedUpstream([answer()] * 2) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        for _ in range(2):
            assert (await client.ask("GET", "/")).status == 200
            await until(lambda: next(iter(listener(proxy)._callers)).is_idle)
            listener(proxy).sweep(in_seconds(0))
            listener(proxy).sweep(in_seconds(3500))
        listener(proxy).sweep(in_seconds(3700))
        assert await client.rest() == b""


async def test_a_request_that_is_being_served_is_in_no_hurry() -> None:
    may_answer = asyncio.Event()

    async def play(wire: object) -> None:
        del wire
        await may_answer.wait()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("POST", "/", [("Content-Length", "5")]), b"he")
        await until(lambda: upstream.connections)
        await client.send(b"l")
        listener(proxy).sweep(in_seconds(1000))
        assert listener(proxy)._callers
        may_answer.set()


async def test_requests_that_wait_behind_another_start_no_clock() -> None:
    may_answer = asyncio.Event()

    async def play(wire: UpstreamWire) -> None:
        while True:
            if (await wire.request()).target == "/15":  # by then more of the queue is read again
                await may_answer.wait()
            await wire.send(answer())

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(*(request("GET", f"/{number}") for number in range(60)))
        await until(lambda: upstream.requests and upstream.requests[-1].target == "/15")
        listener(proxy).sweep(in_seconds(1000))
        may_answer.set()
        for _ in range(60):
            assert (await client.answer()).status == 200


async def test_admin_callers_have_to_finish_their_heads_too() -> None:
    admin = {"admin": {"listen": "127.0.0.1:0"}, "limits": {"header_timeout": 0.01}}
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, admin) as proxy,
        raw_client(proxy.admin) as client,
    ):
        await client.send(b"GET /livez")
        assert (await client.answer()).status == 408


# How much.

REFUSED = request("GET", "/refused")
ALLOW = {"routes": {"plain": {"allow": ["GET /allowed"]}}}


def served(proxy: Proxy) -> int:
    return proxy.app._metrics.totals().get("plain", {"requests": 0})["requests"]


async def standstill(proxy: Proxy) -> int:
    before = -1
    while served(proxy) != before:
        before = served(proxy)
        await settle(500)
    return before


async def test_a_caller_that_never_reads_gets_no_more_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, ALLOW) as proxy,
        raw_client(proxy.plain) as client,
    ):
        (caller,) = await connections(proxy, 1)
        assert caller.transport is not None
        for end, name in (caller.transport, socket.SO_SNDBUF), (client.writer, socket.SO_RCVBUF):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, name, 65536)
        client.writer.write(REFUSED * 3000)
        await until(lambda: caller.writing_paused)
        assert await standstill(proxy) < 2500
        assert caller.transport.get_write_buffer_size() < 128 * 1024
        for _ in range(3000):  # but all of them once it reads
            assert (await client.answer()).status == 403
        monkeypatch.setattr(server, "_LINGER", 0.01)
        client.writer.write(REFUSED * 3000)
        await connections(proxy, 0)


async def test_a_caller_that_sends_many_requests_at_once_lets_others_have_their_turn() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url, ALLOW) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(REFUSED * 100)
        before = 0
        while before < 100:
            await asyncio.sleep(0)
            assert served(proxy) <= before + 1
            before = served(proxy)


async def test_heads_behind_a_running_request_are_not_taken_in_without_bound() -> None:
    may_answer, sent = asyncio.Event(), [0]
    head = request("GET", "/refused", [(f"X-{number}", "a" * 600) for number in range(90)])

    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await may_answer.wait()
        await wire.send(answer(b"slow"))
        await wire.rest()

    async def pour(client: RawClient) -> None:
        for _ in range(300):
            await client.send(head)
            sent[0] += 1

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, ALLOW) as proxy,
        raw_client(proxy.plain) as client,
    ):
        await client.send(request("GET", "/allowed"))
        await until(lambda: upstream.requests)
        pouring = asyncio.create_task(pour(client))
        (caller,) = listener(proxy)._callers
        await until(lambda: caller._buffer_paused)
        await settle(500)
        assert len(caller._messages) < 8
        may_answer.set()
        assert (await client.answer()).body == b"slow"
        for _ in range(300):
            assert (await client.answer()).status == 403
        await pouring


async def test_a_caller_that_never_takes_the_end_of_its_last_answer_is_let_go() -> None:
    async with (
        ScriptedUpstream([answer(bytes(16 * 1024 * 1024))]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        (caller,) = await connections(proxy, 1)
        assert caller.transport is not None
        caller.transport.set_write_buffer_limits(64 * 1024 * 1024)  # as if all but a little was out
        await client.send(request("GET", "/", [("Connection", "close")]))
        await until(proxy.lines)
        await until(lambda: caller._task_handler is None)
        listener(proxy).sweep(in_seconds(50))
        await settle()
        assert listener(proxy)._callers
        listener(proxy).sweep(in_seconds(70))
        await connections(proxy, 0)


# How many.


async def connections(proxy: Proxy, count: int) -> list[CallerConnection]:
    await until(lambda: len(listener(proxy)._callers) == count)
    return list(listener(proxy)._callers)


async def test_a_caller_too_many_is_told_so_and_the_next_one_is_served() -> None:
    async with (
        ScriptedUpstream([answer()] * 2) as upstream,
        plain_proxy(upstream.url, {"limits": {"connections": 2}}) as proxy,
    ):
        async with raw_client(proxy.plain) as one, raw_client(proxy.plain):
            await connections(proxy, 2)
            async with raw_client(proxy.plain) as third:
                got = await third.answer()
                assert (got.status, got.get("X-Ekeko-Error")) == (503, "overloaded")
                assert got.get("Retry-After") == "1"
                assert got.json()["code"] == "overloaded"
                assert await third.rest() == b""
            assert (await one.ask("GET", "/")).status == 200  # those inside are served
        await connections(proxy, 0)
        assert proxy.app._limits.taken == 0
        assert (await ask(proxy.plain, "GET", "/")).status == 200


async def test_the_limit_holds_for_all_listeners_together() -> None:
    two = {
        "routes": {"other": {"listen": "127.0.0.1:0", "credential": "none"}},
        "limits": {"connections": 1},
    }
    async with ScriptedUpstream([answer()]) as upstream:
        two["routes"]["other"]["upstream"] = upstream.url  # type: ignore[index]  # as made above
        async with plain_proxy(upstream.url, two) as proxy, raw_client(proxy.plain) as client:
            assert (await client.ask("GET", "/")).status == 200
            async with raw_client(proxy.url("other")) as second:
                assert (await second.answer()).status == 503


# Unix sockets.


async def test_a_socket_is_its_owners_alone_and_goes_with_the_proxy(sock: Path) -> None:
    unix = {"routes": {"plain": {"listen": f"unix:{sock}"}}}
    async with ScriptedUpstream([answer(b"ok")]) as upstream:
        async with plain_proxy(upstream.url, unix) as proxy:
            assert proxy.plain == f"unix:{sock}"
            assert mode_of(sock) == 0o600
            assert (await ask(proxy.plain, "GET", "/")).body == b"ok"
            (line,) = proxy.lines()
            assert line["caller"] == f"unix:pid={os.getpid()},uid={os.getuid()}"
        assert not is_there(sock)


async def test_a_sockets_mode_may_be_configured(sock: Path) -> None:
    unix = {"routes": {"plain": {"listen": f"unix:{sock}", "socket_mode": "0660"}}}
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url, unix):
        assert mode_of(sock) == 0o660


async def test_a_socket_that_nobody_listens_on_is_replaced(sock: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(sock))
    unix = {"routes": {"plain": {"listen": f"unix:{sock}"}}}
    async with (
        ScriptedUpstream([answer(b"ok")]) as upstream,
        plain_proxy(upstream.url, unix) as proxy,
    ):
        assert (await ask(proxy.plain, "GET", "/")).body == b"ok"


async def test_a_socket_that_somebody_listens_on_is_left_alone(sock: Path) -> None:
    unix = {"routes": {"plain": {"listen": f"unix:{sock}"}}}
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(sock))
        live.listen()
        with pytest.raises(OSError, match="another process listens") as caught:
            async with plain_proxy("http://127.0.0.1:1", unix):
                pass
        assert "routes.plain.listen" in str(caught.value)
        assert stat.S_ISSOCK(os.lstat(sock).st_mode)


async def test_a_file_that_is_no_socket_is_left_alone(precious: Path) -> None:
    unix = {"routes": {"plain": {"listen": f"unix:{precious}"}}}
    with pytest.raises(OSError, match=r"routes\.plain\.listen.*not a socket"):
        async with plain_proxy("http://127.0.0.1:1", unix):
            pass
    assert stat.S_ISREG(os.lstat(precious).st_mode)


# Addresses.


async def test_port_0_picks_a_free_port_and_says_which() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        port = int(proxy.plain.rpartition(":")[2])
        assert port > 0
        assert f'"plain": "http://127.0.0.1:{port}"' in proxy.written[0]
        assert '"event": "ready"' in proxy.written[0]
        assert '"admin": null' in proxy.written[0]


async def test_an_address_in_use_is_named_by_its_key() -> None:
    async with ScriptedUpstream([answer()]) as upstream:
        taken = f"127.0.0.1:{upstream.port}"
        for change, key in (
            ({"routes": {"plain": {"listen": taken}}}, "routes.plain.listen"),
            ({"admin": {"listen": taken}}, "admin.listen"),
        ):
            with pytest.raises(OSError, match="in use") as caught:
                async with plain_proxy(upstream.url, change):
                    pass
            assert str(caught.value.strerror).startswith(f"{key}: cannot listen on {taken}")


async def test_ipv6_loopback_is_an_address_like_another() -> None:
    change = {"routes": {"plain": {"listen": "[::1]:0"}}}
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    async with ScriptedUpstream([answer(b"ok")]) as upstream:
        try:
            async with plain_proxy(upstream.url, change) as proxy:
                assert proxy.plain.startswith("http://[::1]:")
                assert (await ask(proxy.plain, "GET", "/")).body == b"ok"
        except OSError as error:
            pytest.skip(f"this machine has no IPv6 loopback: {error}")


async def test_two_routes_on_one_listener_are_told_apart_by_their_prefixes() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{probe.getsockname()[1]}"
    async with ScriptedUpstream([answer(b"plain")]) as one, ScriptedUpstream([answer(b"b")]) as two:
        routes = {
            "plain": {"listen": here},
            "b": {
                "listen": here,
                "prefix": "/b",
                "strip_prefix": True,
                "upstream": two.url,
                "credential": "none",
            },
        }
        async with plain_proxy(one.url, {"routes": routes}) as proxy:
            assert proxy.url("b") == proxy.plain == f"http://{here}"
            assert (await ask(proxy.plain, "GET", "/b/c")).body == b"b"
            assert (await ask(proxy.plain, "GET", "/bc")).body == b"plain"
            assert [each.target for each in two.requests] == ["/c"]
            assert [line["route"] for line in proxy.lines()] == ["b", "plain"]
