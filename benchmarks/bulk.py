"""The upstream of streams: `GET /N` yields N bytes, `POST` swallows as many as it announces.

A thread for each connection. Whoever lacks the token gets a 403. Run as `python -m benchmarks.bulk
PORT`.
"""

from __future__ import annotations

import re
import socket
import sys
import threading

from benchmarks.upstream import TOKEN

_PIECE = 256 * 1024  # bytes
_ZEROS = memoryview(bytes(_PIECE))


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=[connection], daemon=True).start()


def _serve(connection: socket.socket) -> None:
    buffer = bytearray(_PIECE)
    with connection:
        while (end := (read := _read_head(connection)).find(b"\r\n\r\n")) > 0:
            head, early = read[:end], len(read) - end - 4
            announced = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
            left = int(announced[1]) - early if announced else 0
            while left > 0:
                if not (count := connection.recv_into(buffer)):
                    return
                left -= count
            _answer(connection, head)


def _read_head(connection: socket.socket) -> bytes:
    """Return what has come when the head is whole, or the connection closed."""
    read = b""
    while b"\r\n\r\n" not in read:
        try:
            piece = connection.recv(64 * 1024)
        except ConnectionError:
            return b""
        if not piece:
            return b""
        read += piece
    return read


def _answer(connection: socket.socket, head: bytes) -> None:
    asked = re.match(rb"GET /([0-9]+) ", head)
    left = int(asked[1]) if asked else 0
    allowed = f"Bearer {TOKEN}\r\n".encode() in head + b"\r\n"
    status = b"200 OK" if allowed else b"403 Forbidden"
    try:
        connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, left))
        while left > 0:
            left -= connection.send(_ZEROS[:left])
    except ConnectionError:
        return


if __name__ == "__main__":
    main()
