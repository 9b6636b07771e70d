"""Fixtures that most tests use."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from proxy import exchange
from proxy.sandbox import StandIns
from tests import certificates
from tests.support import ManualClock, Running, proxy_in_front

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.certificates import Authority

_skipped: list[str] = []

if os.environ.get("EKEKO_TEST_COMPILED") and (exchange.__file__ or "").endswith(".py"):
    raise pytest.UsageError("EKEKO_TEST_COMPILED is set, but the proxy is not compiled")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the standard loop, or with EKEKO_TEST_LOOP=uvloop on production's."""
    name = os.environ.get("EKEKO_TEST_LOOP", "asyncio")
    if name == "asyncio":
        return {name: asyncio.new_event_loop}
    if name == "uvloop":
        import uvloop  # noqa: PLC0415 - optional

        return {name: uvloop.new_event_loop}
    raise pytest.UsageError(f"EKEKO_TEST_LOOP: expected asyncio or uvloop, not {name!r}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything that tests need is installed, a skipped test is a failed one."""
    if _skipped and os.environ.get("EKEKO_NO_SKIPS"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and os.environ.get("EKEKO_NO_SKIPS"):
        terminalreporter.write_line(f"FAILED: skipped with EKEKO_NO_SKIPS set: {_skipped}")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A call that blocks the event loop fails the test, if the proxy's own code made it."""
    with blockbuster_ctx("proxy") as blockbuster:
        # One quick call when a listener ends: the socket's file has to go with it.
        blockbuster.functions["os.unlink"].can_block_in("proxy/listener.py", "stop_accepting")
        blockbuster.functions["os.unlink"].can_block_in("proxy/workers/doors.py", "close")
        yield


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    return certificates.found_in(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[str, str]:
    return authority.issue("localhost", "DNS:localhost")


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def front() -> AsyncIterator[Running]:
    """A proxy in front of stand-ins, as `ekeko sandbox` sets it up."""
    async with StandIns() as stand_ins, proxy_in_front(stand_ins) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
