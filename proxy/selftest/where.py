"""Where a request may go: targets, paths, `allow`, redirects, origins, switches of protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from proxy.selftest.case import arrives, case, expect, get, refused, request

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground

_STAGING: Final = {
    "kind": "eko",
    "environment": "staging",
    "developer_key": "selftest",
    "access_key": "selftest",
}
_TOKEN: Final = {"kind": "bearer", "token": "selftest"}


def _target(name: str, target: str, tried: str, threat: int = 9) -> Case:
    return refused(name, tried, get(target), threat=threat)


def _narrow(name: str, tried: str, raw: bytes) -> Case:
    return refused(name, tried, raw, threat=9, status=403, code="not_allowed", route="narrow")


def _as_spelled(name: str, target: str, tried: str, route: str = "plain") -> Case:
    start = f"GET {target} HTTP/1.1".encode("latin-1")
    return arrives(name, tried, get(target), threat=9, as_sent=start, route=route)


def _configuration(name: str, tried: str, upstream: str, credential: dict[str, Any]) -> Case:
    """Expect a configuration to be an error."""

    @case(name, tried, "a configuration error, exit status 2", threat=11)
    async def attack(ground: Ground) -> str:
        route = {"listen": "127.0.0.1:0", "upstream": upstream, "credential": "c"}
        raw = {"routes": {"r": route}, "credentials": {"c": credential}}
        status, said = await ground.program.judge("check", "bad.yaml", json.dumps(raw))
        expect(status == 2 and b"routes.r.upstream" in said, f"exit status {status}")  # noqa: PLR2004
        return "refused at routes.r.upstream, exit status 2"

    return attack


@case(
    "open-listener",
    "A listener that other machines reach, and nobody has to say who calls.",
    "a configuration error, exit status 2",
    threat=5,
)
async def _open_listener(ground: Ground) -> str:
    route = {"listen": "0.0.0.0:0", "upstream": "https://api.eka.care", "credential": "none"}
    raw = {"routes": {"r": route}, "admin": {"listen": None}}
    status, said = await ground.program.judge("check", "open.yaml", json.dumps(raw))
    expect(status == 2 and b"routes.r.listen" in said, f"exit status {status}")  # noqa: PLR2004
    return "refused at routes.r.listen, exit status 2"


@case(
    "redirect",
    "An answer that redirects elsewhere.",
    "passed on, not followed",
    threat=10,
    route="token",
)
async def _redirect(ground: Ground) -> str:
    watch, before = ground.watch(), ground.trap.connections
    answer = await ground.call(
        "token", request("POST", "/x", "X-Play: redirect", "Content-Length: 0")
    )
    expect(answer.status == 307 and not answer.code, answer.seen)  # noqa: PLR2004
    expect(ground.trap.connections == before, "it was followed")
    expect(len(watch.arrived()) == 1, "it was sent more than once")
    return "307 passed on; nobody went there"


@case(
    "elsewhere",
    "A target, a Host and forwarding fields that all name another server.",
    "nothing reaches that server",
    threat=8,
)
async def _elsewhere(ground: Ground) -> str:
    before, trap = ground.trap.connections, ground.trap.url
    port = trap.rpartition(":")[2]
    for target, host in (
        (f"{trap}/x", "localhost"),
        (f"//127.0.0.1:{port}/x", f"127.0.0.1:{port}"),
    ):
        lines = (f"X-Forwarded-Host: 127.0.0.1:{port}", f"Forwarded: host=127.0.0.1:{port}")
        await ground.call("plain", get(target, *lines, host=host))
    await ground.call("plain", get("/x", f"X-Original-URL: {trap}/x", host=f"127.0.0.1:{port}"))
    expect(ground.trap.connections == before, "the other server was reached")
    return "the other server heard nothing"


@case(
    "upstream-in-host",
    "A Host of ours that is not the upstream's.",
    "the upstream is told its own name",
    threat=8,
)
async def _host(ground: Ground) -> str:
    watch = ground.watch()
    await ground.call("plain", get(host="localhost:1"))
    (arrived,) = watch.arrived()
    expect(arrived.all("Host") == [f"127.0.0.1:{ground.recorder.port}"], "it got the caller's Host")
    return "its own name alone"


@case(
    "environment",
    "http_proxy, all_proxy and .netrc in the program's environment.",
    "none is used, for calls or for logins",
    threat=33,
)
async def _environment(ground: Ground) -> str:
    watch, before = ground.watch(), ground.trap.connections
    await ground.call("plain", get())
    answer = await ground.call("login-good", get())
    arrived = watch.arrived()
    expect(answer.status == 200 and len(arrived) == 2, answer.seen)  # noqa: PLR2004
    logins = [each for each in ground.door.journal if each.target.startswith("/good/")]
    expect(logins, "no login arrived")
    sent = [*arrived[0].all("Authorization"), *logins[0].all("Authorization")]
    expect(not sent, "a password of .netrc was sent")
    expect(ground.trap.connections == before, "the environment's proxy was used")
    return "neither was used"


@case(
    "h2c",
    "An upgrade to HTTP/2 without TLS, which would pass by all policy.",
    "goes on as an ordinary request, without the wish",
    threat=14,
)
async def _h2c(ground: Ground) -> str:
    watch = ground.watch()
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    answer = await ground.call("plain", get("/x", *lines))
    (arrived,) = watch.arrived()
    left = [*arrived.all("Upgrade"), *arrived.all("HTTP2-Settings")]
    expect(answer.status == 200 and not left, answer.seen)  # noqa: PLR2004
    return "200; Upgrade and HTTP2-Settings did not arrive"


CASES: Final = [
    _target("absolute", "http://evil.example/x", "An absolute target elsewhere.", 8),
    _target("absolute-ours", "http://localhost/x", "An absolute target that names us.", 8),
    _target("two-slashes", "//evil.example/x", "A target that could be read as an authority.", 8),
    _target("userinfo", "http://localhost@evil.example/x", "A target with userinfo.", 8),
    _target("no-slash", "x", "A target that does not begin with a slash.", 8),
    refused("connect", "CONNECT.", request("CONNECT", "evil.example:443"), threat=8),
    refused("connect-path", "CONNECT to a path.", request("CONNECT", "/x"), threat=8),
    refused("asterisk", "OPTIONS *.", request("OPTIONS", "*"), threat=8),
    _elsewhere,
    _host,
    _target("encoded-slash", "/a/..%2fadmin", "An encoded slash."),
    _target("dots", "/a/../admin", "A dot segment."),
    _target("encoded-dots", "/a/%2e%2e/admin", "A dot segment, encoded."),
    _target("dots-parameter", "/a/..;/admin", "A dot segment with a parameter."),
    _target("encoded-parameter", "/a/..%3b/admin", "The same, encoded."),
    _target("twice-encoded", "/a/%252e%252e/admin", "A dot segment, encoded twice."),
    _target("backslash", "/a\\..\\admin", "Backslashes."),
    _target("encoded-backslash", "/a%5c..%5cadmin", "Backslashes, encoded."),
    _target("encoded-nul", "/a%00.txt", "An encoded NUL."),
    _target("encoded-break", "/a%0d%0aX-Injected:%20b", "An encoded line break."),
    _target("fragment", "/a#b", "A fragment."),
    _target("bad-escape", "/a%zz", "A percent sign without two digits."),
    _target("empty-segment", "/a//b", "An empty segment."),
    _target("overlong", "/a/%c0%ae%c0%ae/admin", "Dots in overlong UTF-8."),
    _target("raw-bytes", "/a\xff", "Bytes beyond ASCII."),
    _target("space", "/a b", "A space."),
    _as_spelled("spelled-path", "/a%41%7E/b,c:d@e", "Escapes that need not be: kept."),
    _as_spelled("spelled-query", "/x?a=%2F%2c+b&&c[]=/../&=", "Anything in a query: kept."),
    _narrow("allow-method", "A method that `allow` has not.", request("DELETE", "/open/1")),
    _narrow("allow-path", "A path that `allow` has not.", get("/closed")),
    _narrow("allow-encoded", "A path of its, one letter encoded.", get("/%63losed")),
    _narrow("allow-case", "A permitted path in capitals.", get("/OPEN/1")),
    _as_spelled("allow-passes", "/o%70en/1", "A permitted path, one letter encoded.", "narrow"),
    _redirect,
    _configuration(
        "staging-to-production", "A staging key to production.", "https://api.eko.in", _STAGING
    ),
    _configuration(
        "token-to-storage",
        "A bearer token to a storage host.",
        "https://b.s3.amazonaws.com",
        _TOKEN,
    ),
    _configuration("plain-http", "A credential over plain http.", "http://api.eka.care", _TOKEN),
    _configuration(
        "like-the-vendor", "A host that ends like the vendor's.", "https://evileka.care", _TOKEN
    ),
    _open_listener,
    _environment,
    _h2c,
]
