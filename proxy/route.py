"""One route at run time: where its requests go, with what, and how paths map both ways."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from proxy import target as targets
from proxy.errors import ProxyError, bad_request
from proxy.headers import RequestSorter
from proxy.target import Target
from proxy.values import NO_CREDENTIAL
from proxy.vendors.catalogue import Catalogue

if TYPE_CHECKING:
    from proxy.addresses import Origin
    from proxy.credentials.base import Credential
    from proxy.routing import Operations, Prefixes
    from proxy.upstream.pool import Pool

logger = logging.getLogger(__name__)

_NO_CATALOGUE = Catalogue([])


class Timeouts(NamedTuple):
    """Seconds to wait for an upstream; None for no limit."""

    response: float
    idle: float
    total: float | None


class InFlight(Protocol):
    """A request that is being served."""

    def sweep(self, now: float) -> None:
        """End it if its time is up; `now` is the clock's."""
        ...


class Route:
    """A route, and the requests that it serves at the moment.

    PermissionError if its connections lead where its credential may not go: whatever went wrong
    before, such a route does not come about. `neighbours` are all routes of its listener, where
    there are others.
    """

    def __init__(
        self,
        name: str,
        *,
        upstream: Origin,
        credential: Credential,
        pool: Pool,
        timeout: Timeouts,
        prefix: str = "/",
        strip_prefix: bool = False,
        allow: tuple[Operations, ...] | None = None,
        max_body: int | None = None,
        scrub: bool = True,
        max_in_flight: int | None = None,
        callers: frozenset[str] | None = None,
        is_secure: bool = False,
    ) -> None:
        there = pool.dialer
        if there.origin != upstream or not credential.permits(upstream, there.server_name):
            raise PermissionError(1, f"routes.{name}: its credential may not go to {upstream.root}")
        self.name = name
        self.credential: Final = credential
        self.pool: Final = pool
        self.timeout = timeout
        self.max_body = max_body
        self.scrub = scrub
        self.max_in_flight = math.inf if max_in_flight is None else max_in_flight
        self.callers = callers  # those that it serves; None for all that may use its listener
        self.sorter = RequestSorter(
            credential.owned,
            credential.consumed,
            is_judged=allow is not None or credential.kind != NO_CREDENTIAL,
        )
        self.base_path = upstream.base_path
        self.host_line = b"Host: %b\r\n" % upstream.authority.encode()
        self.exchanges: set[InFlight] = set()
        self._upstream = upstream
        self._scheme = "https" if is_secure else "http"  # of its listener
        self._strip = prefix.rstrip("/") if strip_prefix else ""
        self._allow = allow
        self._catalogue = credential.catalogue or _NO_CATALOGUE
        self._has_told_of_echo = False
        self.neighbours: Prefixes[Route] | None = None

    @property
    def in_flight(self) -> int:
        """Count the requests that are being served."""
        return len(self.exchanges)

    def sweep(self, now: float) -> None:
        """See to the deadlines of its requests and connections; `now` is the clock's."""
        for exchange in list(self.exchanges):
            exchange.sweep(now)
        self.pool.sweep(now)

    def allows(self, method: str, path: str) -> bool:
        """Tell whether `allow` has this operation; the path is as after `strip_prefix`."""
        return self._allow is None or any(each.allows(method, path) for each in self._allow)

    def strip(self, target: Target) -> Target:
        """Remove the prefix, where this route does; ProxyError if it is spelled in another way."""
        if not self._strip:
            return target
        if not target.raw_path.startswith(self._strip):
            raise bad_request("The route's prefix has to be spelled without percent-encoding.")
        at = len(self._strip)
        raw_path, path = target.raw_path[at:] or "/", target.path[at:] or "/"
        raw = raw_path + target.raw[len(target.raw_path) :]
        return Target(raw, raw_path, path, target.query)

    def tell_of_echo(self) -> None:
        """Log, once, that an upstream repeats what it is sent: its answers are not as they were."""
        if not self._has_told_of_echo:
            self._has_told_of_echo = True
            logger.warning(
                "route %s: an answer echoed the credential, and was masked with '*'", self.name
            )

    def template(self, target: Target) -> str:
        """Return the vendor's template of a path, which holds nobody's number."""
        return self._catalogue.template(self.base_path + target.path[len(self._strip) :])

    def relocate(self, location: bytes, host: bytes, asked: bytes) -> bytes:
        """Turn a Location on the upstream's own origin into one on the listener's (`host`).

        `asked` is the target that was sent. Where the caller's next call would go by a neighbour,
        with another credential, it gets a Location at the upstream instead.
        """
        text = location.decode("latin-1")
        here = f"{self._scheme}://{host.decode('latin-1')}"
        moved = self._moved(text, here)
        if self.neighbours is not None:
            sent = asked.decode("latin-1")
            was = here + self._strip + sent[len(self.base_path) :]
            if self._leads_to_neighbour(self.neighbours, was, moved, here):
                moved = urljoin(self._upstream.root + sent, text)
        return moved.encode("latin-1")

    def _leads_to_neighbour(
        self, neighbours: Prefixes[Route], was: str, moved: str, here: str
    ) -> bool:
        """Tell whether a caller that was at a URL, and follows a Location, leaves this route."""
        try:
            parts = urlsplit(urljoin(was, moved))
        except ValueError:
            return False  # it leads nowhere
        if f"{parts.scheme}://{parts.netloc}" != here:
            return False
        try:
            path = targets.parse(parts.path or "/").path
        except ProxyError:
            return True  # nobody's, unless who follows reads it in another way
        return neighbours.find(path) is not self

    def _moved(self, text: str, here: str) -> str:
        rest = self._after_own_origin(text)
        if rest is None or not self._is_below_base(rest.partition("?")[0].partition("#")[0]):
            return text
        path = self._strip + rest[len(self.base_path) :]
        if not path.startswith("/"):
            path = f"/{path}"
        if path.startswith("//"):
            return text  # without its origin it would name another host
        named = text.startswith("//") or not text.startswith("/")
        return here + path if named else path

    def _after_own_origin(self, text: str) -> str | None:
        """Return what follows the origin, None where it is another's or the path is relative."""
        try:
            url = urlsplit(text)
            port = url.port or {"http": 80, "https": 443}.get(url.scheme or self._upstream.scheme)
        except ValueError:
            return None
        if "\t" in text:
            return None  # urlsplit drops tabs: what it read is not what stands there
        if not url.netloc:
            return text if text.startswith("/") else None
        here = (self._upstream.scheme, self._upstream.host, self._upstream.port)
        if (url.scheme or here[0], url.hostname, port) != here:
            return None
        return text.partition("//")[2][len(url.netloc) :]

    def _is_below_base(self, path: str) -> bool:
        base = self.base_path
        return not base or path == base or path.startswith(base + "/")
