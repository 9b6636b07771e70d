"""Addresses that several sockets accept on, and nobody else's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxy.addresses import Listen
from proxy.workers.doors import Door

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY = Listen("127.0.0.1", 0)


@pytest.fixture(params=[ANY, Listen("::1", 0)], ids=str)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    made = Door(request.param, 0o600)
    yield made
    made.close()


def listening(door: Door) -> socket.socket:
    sock = door.for_a_worker()
    sock.listen(100)
    sock.setblocking(False)
    return sock


def port_of(door: Door) -> int:
    return int(door.listen.url(secure=False).rpartition(":")[2])


def connections(sock: socket.socket) -> int:
    """Count what waits to be accepted, and accept it."""
    number = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return number
        number += 1


def test_all_have_the_port_that_was_picked_and_each_gets_connections(door: Door) -> None:
    socks = [listening(door) for _ in range(3)]
    host = socks[0].getsockname()[0]
    for _ in range(100):
        socket.create_connection((host, port_of(door))).close()
    counts = [connections(sock) for sock in socks]
    assert sum(counts) == 100
    assert all(counts)
    for sock in socks:
        sock.close()


def test_a_socket_that_is_gone_gets_nothing_and_another_may_take_its_place(door: Door) -> None:
    first, second = listening(door), listening(door)
    first.close()
    third = listening(door)
    for _ in range(50):
        socket.create_connection(second.getsockname()[:2]).close()
    assert connections(second) + connections(third) == 50
    second.close()
    third.close()


def test_an_address_that_other_workers_share_is_in_use(door: Door) -> None:
    """Joining them is what SO_REUSEPORT would do, and nobody would notice."""
    host = "::1" if "[" in door.listen.url(secure=False) else "127.0.0.1"
    taken = Listen(host, port_of(door))
    with listening(door), pytest.raises(OSError, match="in use"):
        Door(taken, 0o600)


def test_a_unix_socket_is_one_for_all(tmp_path: Path) -> None:
    path = tmp_path / "s"
    door = Door(Listen("", 0, str(path)), 0o640)
    assert door.listen.url(secure=False) == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o640
    first, second = listening(door), listening(door)
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert connections(first) == 10
    assert connections(second) == 0
    first.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert connections(second) == 1
    second.close()
    door.close()
    assert not path.exists()


def test_a_file_that_came_after_it_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    door = Door(Listen("", 0, str(path)), 0o600)
    door.close()
    path.write_text("another's")
    door.close()
    assert path.exists()
