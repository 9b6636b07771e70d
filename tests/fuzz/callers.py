"""The whole of a caller's side: raw bytes in, requests to the upstream out."""

from __future__ import annotations

import asyncio
import posixpath
from typing import Final
from urllib.parse import unquote

from proxy.routing import Operations
from tests.memory import Front, arrived_as, passed, read_by_h11
from tests.support import settle

_HOST: Final = b"Host: localhost\r\n"
_HIDDEN: Final = b"GET /open/hidden HTTP/1.1\r\n" + _HOST + b"\r\n"

# The first byte says where to cut.
SEEDS: Final = [
    b"\x20" + data
    for data in [
        _HIDDEN,
        b"POST /open/x?y HTTP/1.1\r\n"
        + _HOST
        + b"Content-Length: 5\r\nX-A: b\r\n\r\nhello"
        + _HIDDEN,
        b"POST /open/x HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n0\r\nX-T: y\r\n\r\n" + _HIDDEN,
        b"POST /open/x HTTP/1.1\r\n" + _HOST + b"Content-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _HIDDEN,
        b"GET /closed HTTP/1.1\r\n" + _HOST + b"Connection: X-A\r\nX-A: b\r\n\r\n" + _HIDDEN,
        b"GET /open/ws HTTP/1.1\r\n"
        + _HOST
        + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        + _HIDDEN,
        b"PUT /open/x HTTP/1.1\r\n"
        + _HOST
        + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /open/x HTTP/1.0\r\n" + _HOST + b"Connection: keep-alive\r\n\r\n" + _HIDDEN,
    ]
]
WORDS: Final = [
    *(
        _HIDDEN,
        _HOST,
        b"Host: evil.example\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n"),
    *(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"POST /open/x", b"CONNECT x:1", b"OPTIONS *", b"/closed", b"%2e"),
    *(b"\r\n", b"\n", b"\r", b"\r\n ", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xff", b":", b";"),
]


def run(data: bytes) -> None:
    """See the module."""
    if data:
        asyncio.run(_run(data[0], data[1:]))


async def _run(cut: int, stream: bytes) -> None:
    front = Front(allow=(Operations.parse("* /open/**"),))
    arrived, answers = await front.say([stream[:cut], stream[cut:]] if cut else [stream])
    front.close()
    await settle(4)
    assert b"internal_error" not in answers
    read = iter(passed(each) for each in read_by_h11(stream))
    for each in arrived:
        assert any(arrived_as(each, other) for other in read), each  # in their order
        path = posixpath.normpath(unquote(each.target.decode("latin-1").partition("?")[0]))
        assert f"{path}/".startswith("/open/")
