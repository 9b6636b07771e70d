"""The three stand-ins as running servers."""

import errno
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from proxy.sandbox.dummies import (
    SANDBOX_ACCESS_KEY,
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_DEVELOPER_KEY,
    SANDBOX_SHARING_KEYS,
    SANDBOX_USER_CODE,
)
from proxy.sandbox.eka import EkaStandIn
from proxy.sandbox.eko import EkoStandIn
from proxy.sandbox.storage import StorageStandIn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from proxy.sandbox.base import StandIn

_SHUTDOWN: Final = 0.2  # seconds for answers under way; hanging faults are let go at once
_LONGEST_LINE: Final = 256 * 1024  # bytes: a vendor's limits are not what is tested here
_MOST_HEADERS: Final = 2000


class StandIns:
    """Async context manager that runs Eka, Eko and object storage on the given ports (0: any).

    `clock` gives wall seconds. A port that is taken raises OSError, unless `fallback` allows
    any free one instead. The URLs are origins.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        eka_port: int = 0,
        eko_port: int = 0,
        storage_port: int = 0,
        clock: "Callable[[], float]" = time.time,
        fallback: bool = False,
    ) -> None:
        self._host = host
        self._ports = {"eka": eka_port, "eko": eko_port, "storage": storage_port}
        self._fallback = fallback
        self.eka = EkaStandIn(clock)
        self.eko = EkoStandIn(clock)
        self.storage = StorageStandIn(clock)
        self.eka_url = self.eko_url = self.storage_url = ""
        self._stack = AsyncExitStack()

    def credentials(self) -> dict[str, Any]:
        """Write the `credentials` of a configuration in front of them: dummy secrets, in full."""
        return {
            "eka": {
                "kind": "eka",
                "client_id": SANDBOX_CLIENT_ID,
                "client_secret": SANDBOX_CLIENT_SECRET,
                "login_url": self.eka_url,
                "origins": [self.eka_url],
                "workspaces": {
                    name: {"sharing_key": key} for name, key in SANDBOX_SHARING_KEYS.items()
                },
            },
            "eko": {
                "kind": "eko",
                "environment": "staging",
                "developer_key": SANDBOX_DEVELOPER_KEY,
                "access_key": SANDBOX_ACCESS_KEY,
                "user_code": SANDBOX_USER_CODE,
                "origins": [self.eko_url],
            },
        }

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.storage_url = await self._serve(self.storage, stack)
            self.eka.answers.storage_url = self.storage_url
            self.eka_url = await self._serve(self.eka, stack)
            self.eko_url = await self._serve(self.eko, stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        for stand_in in (self.eka, self.eko, self.storage):
            stand_in.closing.set()
        await self._stack.aclose()

    async def _serve(self, stand_in: "StandIn", stack: AsyncExitStack) -> str:
        """Start one server and return its origin."""
        server = web.Server(
            stand_in.handle,
            access_log=None,
            auto_decompress=False,  # a body counts as it was spelled
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            max_headers=_MOST_HEADERS,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await self._listen(runner, self._ports[stand_in.name])
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{shown}:{runner.addresses[0][1]}"

    async def _listen(self, runner: web.ServerRunner, port: int) -> None:
        try:
            await web.TCPSite(runner, self._host, port).start()
        except OSError as error:
            if not self._fallback or error.errno != errno.EADDRINUSE:
                raise
            await web.TCPSite(runner, self._host, 0).start()
