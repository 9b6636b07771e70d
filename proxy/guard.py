"""Who may speak to the proxy at all. Pure: no I/O, no clock.

A local port answers whatever program reaches it, and a browser is a program that strangers
steer. So a request has to name a host that is ours (a rebound DNS name is not), and must not come
from a page of another web origin. Requests from ordinary programs carry neither `Origin` nor
`Sec-Fetch-Site`, and pass.

Facts this rests on, as tests/browser/ shows:
- Browsers send `Origin` with what is neither GET nor HEAD, and where a page is to read the answer.
- Only towards hosts that they trust (over http: loopback's own) do they send `Sec-Fetch-Site` with
  the rest. Under any other name that a browser can reach, a page can have GETs sent, blindly.
- `none` is an address that a person typed or opened from another program, and also where such an
  address redirected to: a GET, whose answer that person alone sees.
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
_LOOPBACK_6 = ipaddress.IPv6Address("::1")


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
    """Tell whether a host name or address (no brackets) is this machine's own loopback.

    ::ffff:127.0.0.1 is not, though Python 3.13 says so: browsers reach this machine by it, and do
    not trust it.
    """
    name = host.removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address == _LOOPBACK_6 if address.version == 6 else address.is_loopback  # noqa: PLR2004


def is_wildcard(host: str) -> bool:
    """Tell whether a listener's host stands for all addresses of this machine, and names none."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _canonical(host: str) -> str:
    return host.strip("[]").removesuffix(".").lower()
