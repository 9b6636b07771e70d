"""What the admin listener answers. Nothing here shows a secret: none is at hand."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from proxy.errors import ProxyError, problem
from proxy.headers import RequestSorter

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.guard import Guard

_SORTER = RequestSorter()


class Instance(Protocol):
    """The running proxy, as far as these pages look into it."""

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


class AdminPages:
    """Serves the admin listener. `guard` changes with a reload."""

    def __init__(self, instance: Instance, guard: Guard) -> None:
        self.guard = guard
        self._instance = instance
        self._pages: dict[str, dict[str, Callable[[], web.Response]]] = {
            "/": {"GET": self._page},
            "/livez": {"GET": lambda: web.json_response({"status": "alive"})},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/status.json": {"GET": lambda: web.json_response(instance.status())},
            "/quit": {"POST": self._quit},
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request, by the same guard as the traffic."""
        try:
            self.guard.check(_SORTER.sort(request.raw_headers).read)
        except ProxyError as error:
            return self.reject(request, error)
        methods = self._pages.get(request.path)
        if methods is None:
            return self.reject(request, ProxyError("no_route", "There is no such admin page."))
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            allowed = ", ".join(methods)
            return web.Response(status=405, headers={"Allow": allowed}, text=f"Use {allowed}.\n")
        answer = methods[method]()
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    def reject(self, request: web.BaseRequest, error: ProxyError) -> web.StreamResponse:
        """Answer a request that is not served."""
        del request
        answer = web.Response(
            status=error.status,
            body=problem(error, route="admin", request_id=""),
            content_type="application/problem+json",
            headers={"X-Ekeko-Error": error.code},
        )
        answer.force_close()
        return answer

    def _readyz(self) -> web.Response:
        troubles = self._instance.troubles()
        status = "not ready" if troubles else "ready"
        return web.json_response(
            {"status": status, "reasons": troubles}, status=503 if troubles else 200
        )

    def _metrics(self) -> web.Response:
        return web.Response(
            body=self._instance.metrics_text(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    def _quit(self) -> web.Response:
        self._instance.stop()
        return web.json_response({"status": "draining"}, status=202)

    def _page(self) -> web.Response:
        answer = web.Response(
            text=_render(self._instance.status(), self._instance.troubles()),
            content_type="text/html",
        )
        answer.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return answer


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
    )


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
