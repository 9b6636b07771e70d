"""The end of a process: callers that have nothing to do, or never will, do not hold it up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from proxy.sandbox import Fault, StandIns
from tests.support import ScriptedUpstream, plain_proxy, proxy_in_front, raw_client

if TYPE_CHECKING:
    from tests.support import Proxy, UpstreamWire

AT_MOST = 3  # seconds; an idle connection used to last until its caller hung up


async def end(running: Proxy) -> None:
    running.app.stop()
    async with asyncio.timeout(AT_MOST):
        await running.app.run()


async def test_idle_connections_are_closed(client: aiohttp.ClientSession) -> None:
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as running:
        for url in (f"{running.eka}/dr/v1/patient/p-1", f"{running.admin}/livez"):
            async with client.get(url) as answer:
                assert answer.status == 200
                await answer.read()
        await end(running)


async def test_a_request_that_hangs_gets_no_more_than_the_drain(
    client: aiohttp.ClientSession,
) -> None:
    limits = {"limits": {"drain": 0.3}}
    async with StandIns() as stand_ins, proxy_in_front(stand_ins, limits) as running:
        stand_ins.eka.faults.add(Fault(match="GET /dr/", kind="hang"))
        hanging = asyncio.create_task(client.get(f"{running.eka}/dr/v1/patient/p-1"))
        while not any(each.method == "GET" for each in stand_ins.eka.journal):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await end(running)
        with pytest.raises(aiohttp.ClientError):
            await hanging


async def test_an_answer_that_the_drain_cuts_off_does_not_look_whole() -> None:
    async def play(wire: UpstreamWire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await wire.rest()

    async with (
        ScriptedUpstream(play) as upstream,
        plain_proxy(upstream.url, {"limits": {"drain": 0.1}}) as running,
        raw_client(running.plain) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await client.rest_of(b"hello")
        await end(running)
        with pytest.raises(ConnectionResetError):
            await client.some()
