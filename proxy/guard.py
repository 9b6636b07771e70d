"""Who may speak to the proxy at all. Pure: no I/O, no clock.

A local port answers whatever program reaches it, and a browser is a program that strangers
steer. So a request has to name a host that is ours (a rebound DNS name is not), and must not come
from a page of another web origin. Requests from ordinary programs carry neither `Origin` nor
`Sec-Fetch-Site`, and pass.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::\d{0,5})?")
_REMEMBER_AT_MOST = 64


class Guard:
    """Judges a request's Host, Origin and Sec-Fetch-Site.

    `hosts` are names or addresses (without port) besides loopback's own; `origins` are web
    origins in their serialised form.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(_canonical(host) for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._accepted: set[bytes] = set()

    def check(self, read: dict[str, bytes]) -> None:
        """Let a request pass, by its fields; ProxyError tells why it may not."""
        host = read.get("host", b"")
        if host not in self._accepted:
            self._check_host(host)
        origin = read.get("origin")
        if origin is not None:
            if origin not in self._origins:
                raise ProxyError(
                    "origin_not_allowed",
                    "A browser calls from a web origin that is not in access.origins.",
                )
        elif read.get("sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            # Ports do not count in "same-site": any page on another local port has it.
            raise ProxyError(
                "origin_not_allowed", "A browser calls on behalf of another site's page."
            )

    def _check_host(self, raw: bytes) -> None:
        found = _HOST.fullmatch(raw.decode("latin-1"))
        name = _canonical(found[1]) if found else ""
        if not name or not (is_loopback(name) or name in self._hosts):
            raise ProxyError(
                "host_not_allowed",
                "The Host is neither a loopback name, nor the listener's address, "
                "nor in access.hosts.",
            )
        if len(self._accepted) < _REMEMBER_AT_MOST:
            self._accepted.add(raw)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address (no brackets) is this machine's own loopback."""
    name = host.removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _canonical(host: str) -> str:
    return host.strip("[]").removesuffix(".").lower()
