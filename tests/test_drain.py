"""The end of a process: callers that have nothing to do, or never will, do not hold it up."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from proxy.sandbox import Fault, StandIns
from tests.support import Running, proxy_in_front

AT_MOST = 3  # seconds; an idle connection used to last until its caller hung up


async def end(running: Running) -> None:
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
