"""What a caller may smuggle: framing, fields that pass for the proxy's own, trailers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.selftest.case import HIDDEN, case, expect, get, post, refused, request

if TYPE_CHECKING:
    from proxy.selftest.case import Case
    from proxy.selftest.ground import Ground

_CHUNKED: Final = "Transfer-Encoding: chunked"
_LAST: Final = b"0\r\n\r\n"
_COPIES: Final = (
    *("Authorization: Bearer mine", "authorization: Bearer mine", "AUTHORIZATION: Bearer mine"),
    *("auth: mine", "Auth: mine", "AUTH: mine", "jwt-payload: {}", "jwt_payload: {}"),
    *("Jwt.Payload: {}", "JWT_PAYLOAD: {}"),
)
_ROUND_THE_CORNER: Final = ("Content_Length: 0", "Transfer_Encoding: chunked", "X_Forwarded_For: x")


def _framing(name: str, tried: str, *lines: str, body: bytes = b"") -> Case:
    return refused(name, tried, post(*lines, body=body), threat=17)


def _chunk(name: str, tried: str, body: bytes) -> Case:
    return refused(name, tried, post(_CHUNKED, body=body), threat=17)


def _raw(name: str, tried: str, raw: bytes) -> Case:
    return refused(name, tried, raw, threat=17)


@case(
    "aliases",
    "The caller's own copies of the credential's fields, in ten spellings.",
    "the proxy's token alone arrives",
    threat=16,
    route="token",
)
async def _aliases(ground: Ground) -> str:
    watch = ground.watch()
    await ground.call("token", get("/x", *_COPIES))
    (arrived,) = watch.arrived()
    token = ground.canaries["long-lived token"]
    folded = [name.lower().replace(b"_", b"-").replace(b".", b"-") for name, _ in arrived.fields]
    once = [folded.count(name) for name in (b"authorization", b"auth", b"jwt-payload")]
    expect(once == [1, 1, 0], f"{sum(once)} such fields arrived")
    ours = arrived.all("Authorization") == [f"Bearer {token}"] and arrived.all("auth") == [token]
    expect(ours, "the caller's own arrived")
    return "one of each, the proxy's"


@case(
    "eko-aliases",
    "The caller's own copies of Eko's key and signature.",
    "the stand-in accepts the call: it refuses doubles and other spellings",
    threat=16,
    route="eko",
)
async def _eko_aliases(ground: Ground) -> str:
    copies = [
        f"{name}: mine"
        for name in ("developer_key", "Developer-Key", "developer.key", "SECRET_KEY", "secret-key")
    ]
    copies += ["secret_key_timestamp: 1", "Request-Hash: mine", "request_hash: mine"]
    calls = ground.stand_ins.eko.calls
    target = "/ekoapi/v3/customer/payment/bbps/operators?initiator_id=9962981729"
    answer = await ground.call("eko", get(target, *copies))
    expect(answer.status == 200 and ground.stand_ins.eko.calls == calls + 1, answer.seen)  # noqa: PLR2004
    return "200; accepted as it arrived"


@case(
    "hop-by-hop",
    "A Connection field that names the credential's fields.",
    "they arrive all the same",
    threat=15,
    route="token",
)
async def _hop_by_hop(ground: Ground) -> str:
    watch = ground.watch()
    lines = ("Connection: close, Authorization, auth, Host, Content-Length", "Content-Length: 2")
    await ground.call("token", request("POST", "/x", *lines, body=b"hi"))
    (arrived,) = watch.arrived()
    kept = [name for name in ("Authorization", "auth", "Host") if len(arrived.all(name)) == 1]
    expect(len(kept) == 3 and arrived.body == b"hi", f"{len(kept)} of 3 arrived")  # noqa: PLR2004
    return "all arrived, and the body with them"


@case(
    "forwarded",
    "Forwarding fields, in several spellings.",
    "none arrives, and none is added",
    threat=22,
)
async def _forwarded(ground: Ground) -> str:
    lines = (
        "Forwarded: for=x",
        "X-Forwarded-For: x",
        "X_Forwarded_Proto: x",
        "x-forwarded-host: x",
    )
    watch = ground.watch()
    await ground.call("plain", get("/x", *lines))
    (arrived,) = watch.arrived()
    left = [name for name, _ in arrived.fields if b"forwarded" in name.lower()]
    expect(not left, f"{len(left)} arrived")
    return "none arrived"


@case(
    "framing-aliases",
    "Content_Length and Transfer_Encoding, which lenient servers believe.",
    "they do not arrive",
    threat=16,
)
async def _framing_aliases(ground: Ground) -> str:
    watch = ground.watch()
    await ground.call("plain", get("/x", *_ROUND_THE_CORNER))
    (arrived,) = watch.arrived()
    left = [name for name, _ in arrived.fields if b"_" in name]
    expect(not left, f"{len(left)} arrived")
    return "none arrived"


@case(
    "within-a-body",
    "A whole request within a body, by length and by chunks.",
    "stays a body: one request arrives, one answer comes",
    threat=17,
)
async def _within(ground: Ground) -> str:
    chunked = b"%x\r\n%b\r\n%b" % (len(HIDDEN), HIDDEN, _LAST)
    for raw in (
        post(f"Content-Length: {len(HIDDEN)}", "Connection: close", body=HIDDEN),
        post(_CHUNKED, "Connection: close", body=chunked),
    ):
        watch = ground.watch()
        async with ground.line("plain") as line:
            await line.send(raw)
            answer = await line.answer()
            more = await line.rest()
        arrived = watch.arrived()
        expect(len(arrived) == 1 and not more, f"{len(arrived)} requests arrived")
        expect(answer.status == 200 and arrived[0].body == HIDDEN, answer.seen)  # noqa: PLR2004
    return "one request, one answer, the body as it was"


@case(
    "trailers",
    "Trailers that carry Authorization and a length, with a request behind them.",
    "none arrives, as trailer or as a field of the next request",
    threat=18,
    route="token",
)
async def _trailers(ground: Ground) -> str:
    watch = ground.watch()
    for trailers in (b"X-Trailer: y\r\nauth: mine\r\n", b"X-Trailer: y\r\nContent-Length: 40\r\n"):
        async with ground.line("token") as line:
            await line.send(post(_CHUNKED, body=b"2\r\nhi\r\n0\r\n%b\r\n" % trailers) + HIDDEN)
            await line.rest()
    await ground.ordinary("token")
    arrived = watch.arrived()
    left = [each for each in arrived if each.all("X-Trailer") or "mine" in each.all("auth")]
    expect(arrived, "nothing arrived")
    expect(not left, f"{len(left)} requests carried them")
    return "none arrived"


@case(
    "request-id",
    "Request ids that are too long or hold what a log or a header must not.",
    "replaced",
    threat=21,
)
async def _request_id(ground: Ground) -> str:
    for given in ("x" * 500, 'a", "b": "c', "<script>", "\x1b[2J".replace("\x1b", "%1b")):
        answer = await ground.call("plain", get("/x", f"X-Request-Id: {given}"))
        expect(answer.all("X-Request-Id") not in ([given], []), "it was kept")
    return "all were replaced"


CASES: Final = [
    _framing("cl-and-te", "A length and chunks.", "Content-Length: 4", _CHUNKED, body=_LAST),
    _framing("te-and-cl", "Chunks and a length.", _CHUNKED, "Content-Length: 4", body=_LAST),
    _framing("two-cls", "Two lengths that differ.", "Content-Length: 0", "Content-Length: 42"),
    _framing("two-cls-alike", "Two lengths alike.", "Content-Length: 0", "Content-Length: 0"),
    _framing("cl-list", "A list of lengths.", "Content-Length: 0, 42"),
    _framing("cl-plus", "A length with a plus.", "Content-Length: +5", body=b"hello"),
    _framing("cl-hex", "A length in hexadecimal.", "Content-Length: 0x5", body=b"hello"),
    _framing("cl-minus", "A length below zero.", "Content-Length: -1"),
    _framing("cl-empty", "A length of no digits.", "Content-Length: "),
    _framing("cl-huge", "A length beyond 64 bits.", "Content-Length: 18446744073709551616"),
    _framing(
        "te-unknown", "An encoding that is not chunked.", "Transfer-Encoding: xchunked", body=_LAST
    ),
    _framing("te-list", "chunked, identity.", "Transfer-Encoding: chunked, identity", body=_LAST),
    _framing("te-twice", "Two Transfer-Encodings.", _CHUNKED, _CHUNKED, body=_LAST),
    _framing(
        "te-tab", "A vertical tab before chunked.", "Transfer-Encoding: \x0bchunked", body=_LAST
    ),
    _raw(
        "te-1.0",
        "Chunks in HTTP/1.0.",
        b"POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + _LAST,
    ),
    _framing("space-colon", "A space before the colon.", "Content-Length : 5", body=b"hello"),
    _framing("te-space-colon", "The same, of chunks.", "Transfer-Encoding : chunked", body=_LAST),
    _raw("bare-lf", "Lines that end with LF alone.", b"GET /x HTTP/1.1\nHost: localhost\n\n"),
    _raw("bare-cr", "A CR within a field.", get("/x", "X-A: b\rX-B: c")),
    _raw("obs-fold", "A folded field.", get("/x", "X-A: b", " continued")),
    _raw("nul", "A NUL in a field.", get("/x", "X-A: b\0c")),
    _raw("name-space", "A space in a field's name.", get("/x", "X A: b")),
    _raw("no-colon", "A field without a colon.", get("/x", "X-A")),
    _raw("version", "HTTP/2.0 in words.", b"GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n"),
    _raw("preface", "HTTP/2's preface.", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    _raw("http-0.9", "HTTP/0.9.", b"GET /x\r\n"),
    _chunk("chunk-hex", "A chunk's size with 0x.", b"0x5\r\nhello\r\n" + _LAST),
    _chunk("chunk-plus", "A chunk's size with a plus.", b"+5\r\nhello\r\n" + _LAST),
    _chunk("chunk-huge", "A chunk's size beyond 64 bits.", b"f" * 17 + b"\r\nhello\r\n" + _LAST),
    _chunk("chunk-long", "A chunk longer than its size.", b"2\r\nhello\r\n" + _LAST),
    _chunk("chunk-lf", "Chunks that end with LF alone.", b"5\nhello\n0\n\n"),
    _chunk("chunk-extension", "A CR in a chunk's extension.", b"5;a\rb\r\nhello\r\n" + _LAST),
    _within,
    _trailers,
    _aliases,
    _eko_aliases,
    _framing_aliases,
    _hop_by_hop,
    _forwarded,
    _request_id,
    refused(
        "trace",
        "TRACE, to which an upstream repeats the credential.",
        request("TRACE", "/x"),
        threat=20,
        status=403,
        code="not_allowed",
        route="token",
    ),
]
