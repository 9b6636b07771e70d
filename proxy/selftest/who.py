"""Who may speak to the proxy: names, browsers, admin pages, the socket's file."""

from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING, Final

from proxy.selftest.case import arrives, case, expect, get, refused, request
from proxy.selftest.wire import connect

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground

_EVIL: Final = "Origin: https://evil.example"
_CROSS: Final = "Sec-Fetch-Site: cross-site"
_WEBSOCKET: Final = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def _host(name: str, host: str, tried: str) -> Case:
    return refused(name, tried, get(host=host), threat=1, status=421, code="host_not_allowed")


def _page(name: str, tried: str, raw: bytes, route: str = "plain", threat: int = 2) -> Case:
    return refused(
        name, tried, raw, threat=threat, status=403, code="origin_not_allowed", route=route
    )


def _ours(name: str, host: str) -> Case:
    tried = "A legitimate spelling of loopback in Host, which has to pass."
    return arrives(name, tried, get(host=host), threat=1, as_sent=b"GET /x HTTP/1.1")


@case(
    "quit-by-get",
    "A GET of the admin page that ends the proxy, as an image on a page causes.",
    "405, and the proxy goes on",
    threat=3,
    route="admin",
)
async def _quit_by_get(ground: Ground) -> str:
    answer = await ground.call("admin", get("/quit"))
    await ground.ordinary("plain")
    expect(answer.status == 405 and ground.program.runs, answer.seen)  # noqa: PLR2004
    return "405; it goes on"


@case(
    "socket-mode",
    "Opening the unix socket's file as another user would.",
    "mode 0600",
    threat=4,
    route="socket",
)
async def _socket_mode(ground: Ground) -> str:
    found = await asyncio.to_thread((ground.folder / "ekeko.sock").stat)
    mode = stat.S_IMODE(found.st_mode)
    expect(mode == 0o600, f"mode {mode:04o}")  # noqa: PLR2004
    return f"mode {mode:04o}"


@case(
    "preflight",
    "A preflight from a web origin that is not listed.",
    "refused, without a word of what would be allowed",
    threat=2,
)
async def _preflight(ground: Ground) -> str:
    raw = request("OPTIONS", "/x", _EVIL, "Access-Control-Request-Method: POST")
    watch = ground.watch()
    answer = await ground.call("plain", raw)
    granted = [name for name, _ in answer.fields if name.lower().startswith(b"access-control-")]
    expect(answer.code == "origin_not_allowed" and not granted, answer.seen)
    expect(not watch.arrived(), "it reached the upstream")
    return f"{answer.seen}; nothing is granted"


@case(
    "loopback-only",
    "Calling a route by another address of this machine.",
    "no listener there",
    threat=5,
)
async def _loopback_only(ground: Ground) -> str:
    address = ground.address("plain")
    try:
        async with connect(("127.0.0.2", int(address[1]))):
            pass
    except OSError:
        return "the connection is refused"
    expect(condition=False, seen="a listener on 127.0.0.1 was reached by another address")
    return ""


@case(
    "keys",
    "Callers with no key, a wrong one, two, one in another field, or one of another route.",
    "refused; the right one is served, goes no further, and is not logged",
    threat=59,
)
async def _keys(ground: Ground) -> str:
    key = ground.canaries["caller's key"]
    right, watch = f"X-Ekeko-Key: {key}", ground.watch()
    async with ground.with_keys() as program:

        async def answered(where: str, *lines: str) -> str:
            ready = program.ready
            url = ready["admin"] if where == "admin" else ready["listeners"][where]
            async with connect(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
                await line.send(get("/metrics", *lines))
                answer = await line.answer()
            return answer.code or str(answer.status)

        refusals = {
            await answered("open"),
            await answered("open", f"{right}x"),
            await answered("open", f"X-Ekeko-Key: {key[:-1]}"),
            await answered("open", "X-Ekeko-Key: "),
            await answered("open", f"Authorization: Bearer {key}"),
            await answered("admin"),
        }
        expect(refusals == {"caller_unknown"}, f"answered {', '.join(sorted(refusals))}")
        others = [await answered("open", right, right), await answered("private", right)]
        expect(others == ["bad_request", "caller_not_allowed"], f"answered {', '.join(others)}")
        expect(not watch.arrived(), "a call went upstream")
        expect(
            [await answered("open", right), await answered("admin", right)] == ["200"] * 2,
            "not served",
        )
        expect(key.encode() not in program.output, "the key is in the log")
    (arrived,) = watch.arrived()
    expect(not arrived.all("X-Ekeko-Key"), "the key went upstream")
    return "eight refused; the right one served, and it went no further"


CASES: Final = [
    _host("foreign-host", "evil.example", "A rebound name: a foreign Host."),
    _host("host-suffix", "localhost.evil.example", "A foreign Host that begins like ours."),
    _host("host-prefix", "evil-localhost", "A foreign Host that ends like ours."),
    _host("empty-host", "", "An empty Host."),
    _host("host-userinfo", "localhost@evil.example", "A Host with userinfo."),
    _host("host-list", "localhost, evil.example", "A Host that is a list."),
    _host("host-number", "2130706433", "Loopback as one number, as browsers take it."),
    _host(
        "host-mapped", "[::ffff:127.0.0.1]", "Loopback mapped into IPv6: browsers do not trust it."
    ),
    _host("host-wildcard", "0.0.0.0", "The wildcard address, by which browsers reach loopback."),
    refused(
        "no-host",
        "No Host, in HTTP/1.0.",
        b"GET /x HTTP/1.0\r\n\r\n",
        threat=1,
        status=421,
        code="host_not_allowed",
    ),
    refused("two-hosts", "Two Host fields.", get("/x", "Host: evil.example"), threat=1),
    _ours("host-upper", "LOCALHOST:8180"),
    _ours("host-v6", "[::1]:8180"),
    _ours("host-dot", "localhost."),
    _page("origin", "A fetch by a page of another origin.", get("/x", _EVIL)),
    _page("origin-null", "A fetch by a sandboxed frame: Origin: null.", get("/x", "Origin: null")),
    _page("cross-site", "An image on another site's page.", get("/x", _CROSS)),
    _page("same-site", "A page on another local port.", get("/x", "Sec-Fetch-Site: same-site")),
    _page(
        "form",
        "A form that a page posts.",
        request("POST", "/x", _EVIL, "Content-Type: text/plain", "Content-Length: 3", body=b"a=b"),
    ),
    _page("websocket", "A WebSocket that a page opens.", get("/x", _EVIL, *_WEBSOCKET)),
    _preflight,
    _loopback_only,
    _keys,
    refused(
        "admin-rebound",
        "The metrics under a rebound name.",
        get("/metrics", host="evil.example"),
        threat=3,
        status=421,
        code="host_not_allowed",
        route="admin",
    ),
    _page("admin-read", "The status read by a page.", get("/status.json", _EVIL), "admin", 3),
    _quit_by_get,
    _socket_mode,
    _page(
        "admin-quit",
        "The proxy ended by a page's form.",
        request("POST", "/quit", _EVIL, _CROSS, "Content-Length: 0"),
        "admin",
        3,
    ),
]
