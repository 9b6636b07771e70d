"""The admin pages' listener, which a reload may keep, move or close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import generation, sockets
from proxy.admin.pages import AdminPages
from proxy.limits import Limits
from proxy.listener import Listener

if TYPE_CHECKING:
    from proxy.addresses import Listen
    from proxy.admin.pages import Instance
    from proxy.config.settings import Settings
    from proxy.generation import Generation
    from proxy.limits import Bounds
    from proxy.observe import Observer

_CONNECTIONS = 100


class Console:
    """Where a process tells about itself, as far as the configuration in force wants it."""

    def __init__(self, instance: Instance, settings: Settings, observer: Observer) -> None:
        self._instance = instance
        # Health must be told even when callers hold every connection there is.
        self._limits = Limits(_bounds(settings), observer.limited)
        self._listener: Listener | None = None
        self._listen: Listen | None = None  # as configured

    async def open(self, new: Generation) -> Listener | None:
        """Open what a configuration wants, unless it is open; OSError. To be enforced later."""
        listen = new.settings.admin.listen
        if listen is None or listen == self._listen:
            return None
        callers, served = new.callers(listen), new.settings.admin.callers
        pages = AdminPages(self._instance, new.admin_guard(listen), callers, served)
        listener = Listener(listen, pages, self._limits, new.tls.get(listen))
        with sockets.naming("admin.listen", listen):
            await listener.start()
        return listener

    async def enforce(self, new: Generation, opened: Listener | None) -> None:
        """Go by a new configuration; `opened` is what `open` returned for it."""
        before, listen = self._listener, new.settings.admin.listen
        self._limits.bounds = _bounds(new.settings)
        if listen is not None and listen == self._listen and before is not None:
            assert isinstance(before.handler, AdminPages)  # noqa: S101 - as made in `open`
            before.handler.guard = new.admin_guard(listen)
            before.handler.callers = new.callers(listen)
            before.handler.served = new.settings.admin.callers
            before.tls = new.tls.get(listen)
            return
        self._listener, self._listen = opened, listen
        if before is not None:
            await before.close()

    @property
    def url(self) -> str | None:
        """Where it is to be reached, None if it is turned off."""
        return None if self._listener is None else self._listener.url

    def sweep(self, now: float) -> None:
        """See to what callers hold; `now` is the loop's time."""
        self._limits.tell(now)
        if self._listener is not None:
            self._listener.sweep(now)

    async def close(self) -> None:
        """Close it."""
        if self._listener is not None:
            await self._listener.close()


def _bounds(settings: Settings) -> Bounds:
    return generation.bounds(settings)._replace(connections=_CONNECTIONS, per_caller=None)
