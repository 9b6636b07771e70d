"""The addresses that all workers accept on: bound here, once, so that port 0 is picked once.

On Linux each worker has a socket of its own on a TCP address (SO_REUSEPORT), and the kernel deals
connections out evenly. A unix socket, and TCP elsewhere, is one socket that all accept from.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy import sockets

if TYPE_CHECKING:
    from proxy.addresses import Listen

_DEALS_OUT: Final = sys.platform == "linux"


class Door:
    """One address. All of it may block."""

    def __init__(self, listen: Listen, mode: int) -> None:
        """Bind it; OSError, also where another ekeko's workers listen there already."""
        # Without SO_REUSEPORT, with which it would join whoever has the address already.
        self._sock = sockets.bind(listen, mode)
        self._each_its_own = listen.path is None and _DEALS_OUT
        self._file = None if listen.path is None else Path(listen.path)
        if listen.path is None:
            listen = listen._replace(port=self._sock.getsockname()[1])
        self.listen = listen

    def for_a_worker(self) -> socket.socket:
        """Return a socket for a worker to accept from, to be closed once it has been sent."""
        if not self._each_its_own:
            return self._sock.dup()
        sock = socket.socket(self._sock.family, self._sock.type)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(self._sock.getsockname())
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Let go of the address; workers that still accept there go on until they close it."""
        self._sock.close()
        file, self._file = self._file, None  # another program's may be there the next time
        if file is not None:
            file.unlink(missing_ok=True)
