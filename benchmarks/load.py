"""What calls the proxies: wrk for rates; sockets of our own for latency, streams, idle callers."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from benchmarks.processes import Failed
from benchmarks.upstream import BODY, PATHS, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.processes import Process
    from benchmarks.rounds import Reading
    from benchmarks.upstream import Upstream

_PIECE = 256 * 1024  # bytes
_ZEROS = memoryview(bytes(_PIECE))
_TIMEOUT = 60.0  # seconds
_PER_SOURCE = 5_000  # connections from one loopback address: within its ephemeral ports
_BODY_END = BODY[-16:].encode()


def wrk(
    process: Process,
    upstream: Upstream,
    url: str,
    *,
    connections: int,
    seconds: float,
    settle: float = 0.5,
    script: Sequence[str] = (),
) -> Reading:
    """Keep connections busy; return `cpu` (µs per request) and `rate` (requests per second).

    What happens in the first `settle` seconds, such as connecting, does not count: the upstream
    tells how many requests came between two moments. `script` is a Lua file and its arguments.
    Failed if any request went wrong.
    """
    words = ["wrk", "-t1", f"-c{connections}", "-d1h", "--timeout", f"{_TIMEOUT:.0f}s"]
    words += ["-s", script[0], url, "--", *script[1:]] if script else [url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:  # noqa: S603
        try:
            time.sleep(settle)
            before = process.cpu_seconds(), upstream.served(), time.monotonic()
            time.sleep(seconds)
            after = process.cpu_seconds(), upstream.served(), time.monotonic()
            run.send_signal(signal.SIGINT)  # it stops, and reports
            output, _ = run.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failed("wrk does not come to an end") from None
        finally:
            run.kill()
    process.check()
    for line in output.splitlines():
        if "Non-2xx" in line or "Socket errors" in line:
            raise Failed(f"at {connections} connections: {line.strip()}")
    cpu, served, elapsed = (end - begin for begin, end in zip(before, after, strict=True))
    if served <= 1:  # the asking itself is one
        raise Failed(f"at {connections} connections: nothing was answered")
    return {"cpu": cpu / (served - 1) * 1e6, "rate": (served - 1) / elapsed}


def latencies(port: int, seconds: float) -> list[float]:
    """Call one after the other on one connection for so long; return the sorted times, in µs."""
    times = []
    with _Caller(port) as caller:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            begin = time.perf_counter_ns()
            caller.call()
            times.append((time.perf_counter_ns() - begin) / 1e3)
    return sorted(times)


class Callers:
    """Connections that have each made one call and then stay, until this context is left."""

    def __init__(self, port: int, count: int) -> None:
        self._stack = contextlib.ExitStack()
        self._callers: list[_Caller] = []
        with contextlib.ExitStack() as opened:
            for number in range(count):
                source = f"127.0.0.{2 + number // _PER_SOURCE}"
                caller = opened.enter_context(_Caller(port, source))
                caller.call()
                self._callers.append(caller)
            self._stack = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call_some(self) -> None:
        """Failed unless the connections are still of use: each hundredth is tried."""
        for caller in self._callers[::100]:
            caller.call()


class _Caller:
    """One kept-alive connection that calls for the small answer, with the token besides."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        # With the token, for the direct call.
        fields = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\nauth: {TOKEN}\r\n"
        self._request = f"GET {PATHS['eka']} HTTP/1.1\r\n{fields}\r\n".encode()
        self._buffer = bytearray(4096)
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT, (source, 0))
        except OSError as error:
            raise Failed(f"connecting: {error!r}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self) -> None:
        """Make one call; Failed unless its answer is the right one."""
        got, buffer = 0, memoryview(self._buffer)
        try:
            self._socket.sendall(self._request)
            while not self._buffer.endswith(_BODY_END, 0, got):
                count = self._socket.recv_into(buffer[got:])
                if not count:
                    raise Failed(f"a call was answered with {bytes(buffer[:got])!r}")
                got += count
        except OSError as error:
            raise Failed(f"a call was not answered: {error!r}") from error
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            raise Failed(f"a call was answered with {bytes(buffer[:got])!r}")


def download(port: int, *, size: int, streams: int) -> int:
    """Get so many bytes, over so many connections at once; Failed unless they come."""
    share = size // streams

    def receive(sock: socket.socket) -> None:
        sock.sendall(b"GET /%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (share, port))
        length, early = _read_head(sock)
        if length != share:
            raise Failed(f"the answer has a length of {length}, not {share}")
        buffer, left = bytearray(_PIECE), share - early
        while left > 0:
            if not (count := sock.recv_into(buffer)):
                raise Failed("the answer broke off")
            left -= count

    _at_once(port, streams, receive)
    return share * streams


def upload(port: int, *, size: int, streams: int) -> int:
    """Send so many bytes, over so many connections at once; Failed unless each is answered."""
    share = size // streams

    def send(sock: socket.socket) -> None:
        fields = b"Host: 127.0.0.1:%d\r\nContent-Length: %d" % (port, share)
        sock.sendall(b"POST /up HTTP/1.1\r\n%b\r\n\r\n" % fields)
        left = share
        while left > 0:
            left -= sock.send(_ZEROS[:left])
        _read_head(sock)

    _at_once(port, streams, send)
    return share * streams


def _at_once(port: int, streams: int, work: Callable[[socket.socket], None]) -> None:
    def connect_and_work(_: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as sock:
                work(sock)
        except OSError as error:
            raise Failed(f"a stream broke off: {error!r}") from error

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(connect_and_work, range(streams)))


def _read_head(sock: socket.socket) -> tuple[int, int]:
    """Return the announced length, and how much of the body has come; Failed unless it is a 200."""
    read = b""
    while b"\r\n\r\n" not in read:
        piece = sock.recv(64 * 1024)
        if not piece:
            break
        read += piece
    head, _, early = read.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise Failed(f"a stream was answered with {head[:200]!r}")
    return int(length[1]), len(early)
