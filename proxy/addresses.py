"""Addresses of a configuration: origins, listeners, hosts, outbound proxies.

The checks keep the rules of `proxy.values`: they never quote a value.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from proxy import secrets
from proxy.guard import is_loopback
from proxy.values import SECRET_SCHEMA, text

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_PROXY = re.compile(r"http://(?:[^\s/?#@]+@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?")


class Origin(NamedTuple):
    """Where an upstream is: scheme, host (lower case, no brackets), port, base path (or '')."""

    scheme: str
    host: str
    port: int
    base_path: str

    @property
    def authority(self) -> str:
        """Give `host[:port]` as it stands in Host and in URLs: a default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def root(self) -> str:
        """Give the origin as text (RFC 6454, 6.2), without the base path."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.root + self.base_path

    @property
    def is_loopback(self) -> bool:
        """Tell whether the host is a loopback address or `localhost`."""
        return is_loopback(self.host)


class Listen(NamedTuple):
    """Where a listener accepts: `host` and `port`, or the `path` of a unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, *, secure: bool) -> str:
        """Give the address as callers write it; `secure` tells that they have to speak TLS."""
        if self.path is not None:
            return str(self)
        return f"https://{self}" if secure else f"http://{self}"


def is_overheard(origin: Origin, via: secrets.Secret | None) -> bool:
    """Tell whether what is sent there could be read on its way: plain http beyond loopback.

    With an outbound proxy, plain http leaves this machine whatever the origin's host.
    """
    return origin.scheme == "http" and (via is not None or not origin.is_loopback)


def parse_origin(value: Any) -> Origin:
    """Read `http[s]://host[:port][/base/path]`."""
    if isinstance(value, Origin):
        return value
    wrong = PydanticCustomError(
        "origin", "is not an origin: expected https://HOST[:PORT][/BASE/PATH], no user, no query"
    )
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise wrong
    try:
        url = urlsplit(value)
        host, port = url.hostname, url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in _DEFAULT_PORTS or port == 0 or set(value) & set("@?#%; \\"):
        raise wrong
    base = url.path.rstrip("/")
    if not host or not _is_host(host) or "//" in base or "/." in base:
        raise wrong
    return Origin(url.scheme, host, port or _DEFAULT_PORTS[url.scheme], base)


def parse_upstream(value: Any) -> Origin:
    """Read an origin that requests go to: plain http only where nobody can listen in."""
    origin = parse_origin(value)
    if origin.scheme == "http" and not origin.is_loopback:
        raise PydanticCustomError(
            "plain_http", "is plain http to another machine: expected https, or a loopback address"
        )
    return origin


def parse_web_origin(value: Any) -> Origin:
    """Read an origin as browsers send it in `Origin`: no path."""
    origin = parse_origin(value)
    if origin.base_path:
        raise PydanticCustomError("origin", "has a path: expected http[s]://HOST[:PORT] alone")
    return origin


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.fullmatch(host) is not None
    try:
        return ipaddress.ip_address(host).version == 6  # noqa: PLR2004 - IPv6
    except ValueError:
        return False


def parse_listen(value: Any) -> Listen:
    """Read `host:port`, `[v6]:port` or `unix:/path`."""
    if isinstance(value, Listen):
        return value
    wrong = PydanticCustomError(
        "listen", "is not an address: expected HOST:PORT, [::1]:PORT or unix:/PATH"
    )
    if not isinstance(value, str) or not value.isprintable():
        raise wrong
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > 107:  # noqa: PLR2004 - unix(7)
            raise wrong
        return Listen("", 0, path)
    host, _, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not _PORT.fullmatch(port) or int(port) > 65535:  # noqa: PLR2004 - 16 bits
        raise wrong
    if bracketed != (":" in host) or not _is_host(host):
        raise wrong
    return Listen(host.lower(), int(port))


def _check_listener(value: str) -> str:
    """Hold the key of a mapping to the form of an address, and leave it as it is written."""
    try:
        parse_listen(value)
    except PydanticCustomError as error:
        raise PydanticCustomError("name", "{wrong}", {"wrong": error.message()}) from None
    return value


def parse_host(value: Any) -> str:
    """Read a host name or address by itself, in lower case."""
    if isinstance(value, str) and _is_host(value):
        return value.lower()
    raise PydanticCustomError(
        "host", "is not a host name: expected a name or an address, without scheme and port"
    )


def parse_via(value: Any) -> secrets.Secret:
    """Read an outbound proxy's URL, a secret for the password that may be in it."""
    secret = secrets.parse(value)
    if secret.kind == "literal" and not is_proxy_url(secret.reveal()):
        raise PydanticCustomError(
            "via", "is not a proxy's URL: expected http://[USER:PASSWORD@]HOST:PORT"
        )
    return secret


def is_proxy_url(text: str) -> bool:
    """Tell whether this is `http://[user:password@]host:port`."""
    found = _PROXY.fullmatch(text)
    return found is not None and 0 < int(found[1]) < 65536  # noqa: PLR2004 - 16 bits


ViaField = Annotated[secrets.Secret, PlainValidator(parse_via), SECRET_SCHEMA]
OriginField = Annotated[
    Origin,
    PlainValidator(parse_upstream),
    text("An origin, optionally with a base path", "https://api.eka.care"),
]
WebOriginField = Annotated[
    Origin,
    PlainValidator(parse_web_origin),
    text("A web origin", "http://localhost:3000"),
]
ListenField = Annotated[
    Listen,
    PlainValidator(parse_listen),
    text("HOST:PORT, [::1]:PORT or unix:/PATH; port 0 picks a free one", "127.0.0.1:8180"),
]
ListenerAddress = Annotated[
    str, AfterValidator(_check_listener), text("As in `listen`", "0.0.0.0:8180")
]
HostField = Annotated[
    str, PlainValidator(parse_host), text("A host name or address", "proxy.internal")
]
