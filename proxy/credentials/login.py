"""The HTTP leg of logins: rare, small, JSON both ways. aiohttp's client does it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from proxy.tokens import FetchError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from proxy.secrets import Secret

_ANSWER_AT_MOST = 64 * 1024  # bytes
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=10)


class LoginAnswer(NamedTuple):
    """What the token endpoint answered; `retry_after` in seconds. `repr` shows no body."""

    status: int
    body: bytes
    retry_after: float | None

    def __repr__(self) -> str:
        return f"LoginAnswer(status={self.status})"


class LoginClient:
    """Posts JSON to one origin: no redirects, cookies, netrc or environment proxies."""

    def __init__(
        self,
        root: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        via: Secret | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> None:
        self._root = root
        self._tls = tls
        self._server_name = server_name
        self._via = via
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(
        self, path: str, payload: Mapping[str, str], headers: Mapping[str, str]
    ) -> LoginAnswer:
        """Send one request; FetchError if no whole answer of a reasonable size comes back."""
        if self._closed:
            raise FetchError("the proxy is stopping")
        try:
            async with self._open().post(
                self._root + path,
                json=payload,
                headers=headers,
                allow_redirects=False,
                ssl=True if self._tls is None else self._tls,
                server_hostname=self._server_name,
                proxy=self._via.reveal() if self._via else None,
            ) as answer:
                body = await _read(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The whole text of these errors may hold the outbound proxy's password.
            cause = getattr(error, "os_error", error)
            why = getattr(cause, "strerror", None) or type(error).__name__
            raise FetchError(f"the token endpoint {self._root} did not answer ({why})") from None
        return LoginAnswer(answer.status, body, _retry_after(answer.headers.get("Retry-After")))

    async def close(self) -> None:
        """Close idle connections."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout, trust_env=False
            )
        return self._session


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > _ANSWER_AT_MOST:
            raise FetchError("the token endpoint's answer is far too large to be a token")
    return bytes(body)


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3): seconds or a date; None if absent or malformed."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, then.timestamp() - time.time())
