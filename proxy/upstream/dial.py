"""Opening a connection: name lookup, happy eyeballs, an outbound proxy, TLS."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

from proxy import tls
from proxy.addresses import is_overheard, is_proxy_url
from proxy.errors import ProxyError
from proxy.guard import is_loopback
from proxy.upstream.secure import SecureTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.addresses import Origin
    from proxy.model import Tls
    from proxy.secrets import Secret

_HAPPY_EYEBALLS_DELAY = 0.25  # seconds (RFC 8305, 5)
_CONNECT_ANSWER_AT_MOST = 16 * 1024

P = TypeVar("P", bound=asyncio.Protocol)


class Via(NamedTuple):
    """An outbound HTTP proxy. `repr` shows no credentials."""

    host: str
    port: int
    authorization: bytes

    @classmethod
    def parse(cls, url: str) -> Via:
        """Read `http://[user:password@]host:port`; ProxyError if it is something else."""
        if not is_proxy_url(url):
            raise ProxyError(
                "upstream_unreachable",
                "The route's via is not http://[user:password@]host:port. Nothing was sent.",
            )
        parts = urlsplit(url)
        assert parts.hostname is not None  # noqa: S101 - as just checked
        authorization = b""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            authorization = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(pair)
        return cls(parts.hostname, parts.port or 80, authorization)

    def __repr__(self) -> str:
        return f"Via({self.host}:{self.port})"


class Dialer:
    """Opens connections to one origin. `server_name` is what TLS verifies, None for its host.

    PermissionError if what is sent there could be read on its way.
    """

    def __init__(self, origin: Origin, settings: Tls, via: Secret | None = None) -> None:
        if is_overheard(origin, via):
            raise PermissionError(1, f"plain http to {origin.root} would leave this machine")
        self.origin: Final = origin
        self.server_name: Final = settings.server_name
        self._via = via
        self._tls = tls.context(settings) if origin.scheme == "https" else None

    async def open(self, factory: Callable[[], P], *, within: float) -> P:
        """Connect within so many seconds; ProxyError `upstream_unreachable` if it cannot be done.

        Nothing of a request has been sent by then.
        """
        try:
            async with asyncio.timeout(within):
                return await self._open(factory)
        except TimeoutError:
            raise self._unreachable(f"no connection within {within:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise self._unreachable(f"its certificate: {error.verify_message}") from None
        except socket.gaierror as error:
            raise self._unreachable(f"name lookup: {error.strerror}") from None
        except OSError as error:
            raise self._unreachable(error.strerror or type(error).__name__) from None

    async def _open(self, factory: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        via = Via.parse(self._via.reveal()) if self._via else None
        first = via or self.origin
        infos = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
        if self._tls is None and not all(is_loopback(str(info[4][0])) for info in infos):
            # A name of loopback's that the system takes for another address.
            raise OSError(0, "plain http does not leave this machine")
        sock = await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY, loop=loop
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if via is not None:
                await self._tunnel(sock, via)
        except BaseException:
            sock.close()
            raise
        if self._tls is None:
            return (await loop.create_connection(factory, sock=sock))[1]
        protocol = factory()
        secure = SecureTransport(protocol, self._tls, self.server_name or self.origin.host)
        await loop.create_connection(lambda: secure, sock=sock)
        try:
            await secure.made
        except BaseException:
            secure.abort()
            raise
        return protocol

    async def _tunnel(self, sock: socket.socket, via: Via) -> None:
        """Ask the outbound proxy for a tunnel (RFC 9110, 9.3.6)."""
        loop = asyncio.get_running_loop()
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        target = f"{host}:{self.origin.port}".encode()
        await loop.sock_sendall(
            sock,
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, via.authorization),
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            # One byte too many would be the tunnel's: read what is there, but only up to the head.
            piece = await loop.sock_recv(sock, 1)
            answer += piece
            if not piece or len(answer) > _CONNECT_ANSWER_AT_MOST:
                raise OSError(0, "the outbound proxy did not answer CONNECT")
        status = answer[9:12]
        if not answer.startswith(b"HTTP/1.") or not status.startswith(b"2"):
            shown = status.decode() if status.isdigit() else "no status"
            raise OSError(0, f"the outbound proxy refused the tunnel ({shown})")

    def _unreachable(self, why: str) -> ProxyError:
        return ProxyError(
            "upstream_unreachable",
            f"No connection to {self.origin.root}: {why}. Nothing was sent.",
        )
