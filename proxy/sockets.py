"""Listening sockets: bound, not blocking, closed again if anything fails. All of it may block."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.addresses import Listen


def bind(listen: Listen, mode: int) -> socket.socket:
    """Bind a listener's address; a socket file has `mode` from its first moment. OSError."""
    if listen.path is None:
        return _tcp(listen.host, listen.port)
    return _unix(listen.path, mode)


@contextmanager
def naming(key: str, listen: Listen) -> Iterator[None]:
    """Let an OSError tell which of the configuration's addresses cannot be had."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OSError(error.errno or 0, f"{key}: cannot listen on {listen}: {why}") from None


def _tcp(host: str, port: int) -> socket.socket:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of the addresses of a name such as localhost, the IPv4 one is what programs try.
    family, kind, protocol, _, address = min(infos, key=lambda info: info[0] != socket.AF_INET)

    def to_address(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)

    return _bound(socket.socket(family, kind, protocol), to_address)


def _unix(path: str, mode: int) -> socket.socket:
    """Bind a socket file; one that nobody listens on is replaced."""

    def to_path(sock: socket.socket) -> None:
        _remove_stale(path)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)

    return _bound(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), to_path)


def _bound(sock: socket.socket, bind_it: Callable[[socket.socket], None]) -> socket.socket:
    try:
        bind_it(sock)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another process listens on this socket", path)
