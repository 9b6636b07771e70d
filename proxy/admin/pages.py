"""What the admin listener answers. Nothing here shows a secret: none is at hand."""

from __future__ import annotations

import asyncio
import json
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from proxy import identity
from proxy.errors import ProxyError
from proxy.headers import RequestSorter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from proxy.caller import Caller
    from proxy.guard import Guard
    from proxy.identity import Callers

_SORTER = RequestSorter()
_METRICS = "/metrics"
# Nobody keeps a page, guesses its type, or runs what might be in it.
_SAFE = (
    b"Cache-Control: no-store\r\n",
    b"X-Content-Type-Options: nosniff\r\n",
    b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n",
)
_FOR_ALL = ("/livez", "/readyz")  # probes carry no key, and are told nothing that is secret
_AT_ONCE = ("/livez", "/quit")  # what needs no fresh figures, so waits for nobody


class Instance(Protocol):
    """The running proxy, as far as these pages look into it."""

    async def refresh(self) -> None:
        """Bring up to date what the following tell."""
        ...

    def troubles(self) -> dict[str, str]:
        """Say what keeps the proxy from being ready, by what it concerns."""
        ...

    def status(self) -> dict[str, Any]:
        """Describe the proxy in plain values."""
        ...

    def metrics_text(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        ...

    def stop(self) -> None:
        """Begin to drain."""
        ...


class Page(NamedTuple):
    """One page's answer."""

    body: str
    content_type: str = "application/json"
    status: int = 200


class AdminPages:
    """Serves the admin listener. `guard`, `callers` and `served` change with a reload.

    `callers` is None where nobody has to be known; of those that are known, `served` are the ones
    to be served, None for all.
    """

    def __init__(
        self,
        instance: Instance,
        guard: Guard,
        callers: Callers | None,
        served: Collection[str] | None,
    ) -> None:
        self.guard = guard
        self.callers = callers
        self.served = served
        self._has_writer = False  # of metrics
        self._instance = instance
        self._pages: dict[str, dict[str, Callable[[], Page]]] = {
            "/": {"GET": self._page},
            "/livez": {"GET": lambda: Page(json.dumps({"status": "alive"}))},
            "/readyz": {"GET": self._readyz},
            _METRICS: {"GET": self._metrics},
            "/status.json": {"GET": lambda: Page(json.dumps(instance.status()))},
            "/quit": {"POST": self._quit},
        }

    async def handle(self, caller: Caller) -> None:
        """Serve a request, by the same guard as the traffic."""
        path = caller.target.partition("?")[0]
        try:
            read = _SORTER.sort(caller.fields).read
            self.guard.check(read)
            if self.callers is not None and path not in _FOR_ALL:
                key = read.get(identity.KEY_FIELD)
                identity.serve(self.callers.identify(key, caller.connection.proven), self.served)
        except ProxyError as error:
            self.reject(caller, error)
            return
        methods = self._pages.get(path)
        if methods is None:
            self.reject(caller, ProxyError("no_route", "There is no such admin page."))
            return
        page = methods.get("GET" if caller.method == "HEAD" else caller.method)
        if page is None:
            allowed = ", ".join(methods)
            lines = [b"Allow: %b\r\n" % allowed.encode(), b"Content-Type: text/plain\r\n"]
            caller.answer(405, lines, f"Use {allowed}.\n".encode())
            return
        if path not in _AT_ONCE:
            await self._instance.refresh()
        if path == _METRICS and not self._has_writer:
            # A tenth of a start, and not to be loaded on the event loop.
            await asyncio.to_thread(import_module, "proxy.admin.exposition")
            self._has_writer = True
        body, content_type, status = page()
        caller.answer(
            status, [b"Content-Type: %b\r\n" % content_type.encode(), *_SAFE], body.encode()
        )

    def reject(self, caller: Caller, error: ProxyError) -> None:
        """Answer a request that is not served."""
        caller.keep_alive = False
        lines = [identity.CHALLENGE] if error.code == "caller_unknown" else ()
        caller.answer_error(error, lines, route="admin", request_id="")

    def _readyz(self) -> Page:
        troubles = self._instance.troubles()
        answer = {"status": "not ready" if troubles else "ready", "reasons": troubles}
        return Page(json.dumps(answer), status=503 if troubles else 200)

    def _metrics(self) -> Page:
        return Page(
            self._instance.metrics_text().decode(), "text/plain; version=0.0.4; charset=utf-8"
        )

    def _quit(self) -> Page:
        self._instance.stop()
        return Page(json.dumps({"status": "draining"}), status=202)

    def _page(self) -> Page:
        text = _render(self._instance.status(), self._instance.troubles())
        return Page(text, "text/html; charset=utf-8")


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .8rem;text-align:left}"
)


def _render(status: dict[str, Any], troubles: dict[str, str]) -> str:
    """Write the status page."""
    state = "Ready" if not troubles else "Not ready"
    reasons = "".join(f"<li>{escape(k)}: {escape(v)}</li>" for k, v in troubles.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>ekeko</title>'
        f"<style>{_STYLE}</style><h1>ekeko {escape(status['version'])}</h1>"
        f"<p><strong>{state}</strong></p>{reasons and f'<ul>{reasons}</ul>'}"
        f"<h2>Routes</h2>{_table(status['routes'])}"
        f"<h2>Credentials</h2>{_table(status['credentials'])}"
        f"{_workers(status.get('workers'))}"
    )


def _workers(rows: list[dict[str, Any]] | None) -> str:
    return "" if rows is None else f"<h2>Workers</h2>{_table(rows)}"


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f'<th scope="col">{escape(key.replace("_", " "))}</th>' for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)
