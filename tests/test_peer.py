"""Who is at the other end of a connection, as far as the connection tells."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from proxy import peer

if TYPE_CHECKING:
    import pytest


def transport(of: socket.socket | None, peername: Any = None) -> asyncio.Transport:
    return asyncio.Transport({"socket": of, "peername": peername})


def test_a_process_at_a_unix_socket_is_known_by_its_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = peer.of(transport(ours, ""))
    assert found.name == f"unix:pid={os.getpid()},uid={os.getuid()}"
    assert found.proven == (f"uid:{os.getuid()}",)


def test_whom_a_user_namespace_does_not_know_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflown(*_: object) -> bytes:
        return struct.pack("iII", 1, peer.UNKNOWN_UID, peer.UNKNOWN_UID)

    monkeypatch.setattr(socket.socket, "getsockopt", overflown)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = peer.of(transport(ours, ""))
    assert found.proven == ()
    assert found.who == "uid=65534"


def test_a_tcp_connection_that_was_over_before_it_was_accepted_is_no_user() -> None:
    with socket.socket() as ended:
        assert peer.of(transport(ended)).proven == ()
        assert peer.of(transport(ended)).who == "gone"
