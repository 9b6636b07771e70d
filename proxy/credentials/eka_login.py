"""Eka's login and refresh calls, and the answer that SDKs get instead of them."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy.tokens import FetchError, Token
from proxy.vendors import eka

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from proxy.clock import Clock
    from proxy.credentials.login import LoginAnswer, LoginClient
    from proxy.observe import Observer

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_LIFETIME_UNKNOWN = 600.0  # seconds; for older answers, which had an access_token alone
_LIFETIME_AT_MOST = 86_400.0
_LEEWAY = 0.05  # of a life, at most 5 s: for the way to the upstream
_LEEWAY_AT_MOST = 5.0
# One that is not there means try the older call; one refused in any other way, log in again.
_REFRESH_NOT_THERE = frozenset({404, 405, 410})
_TEMPORARY = frozenset({408, 425, 429})


class Grant(NamedTuple):
    """What a login or refresh yields; `lifetime` in seconds. `repr` shows no token."""

    access_token: str
    refresh_token: str | None
    lifetime: float

    def __repr__(self) -> str:
        return f"Grant(lifetime={self.lifetime:g})"


class EkaLogin:
    """Gets the tokens of one workspace. `body` is what the login sends; `key` identifies it."""

    def __init__(
        self,
        credential: str,
        body: Mapping[str, str],
        *,
        key: Hashable,
        client: LoginClient,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.key = key
        self._credential = credential
        self._body = body
        self._client = client
        self._clock = clock
        self._observer = observer

    async def fetch(self, before: Token | None) -> Token:
        """Refresh `before`, or log in where that is refused; FetchError if neither works."""
        if before is not None and before.refresh is not None:
            try:
                token = await self._refresh(before, before.refresh)
            except FetchError:
                # Tried again later, for as long as the token is valid; after that, a login it is.
                if self._clock.now() < before.expires_at:
                    raise
                token = None
            if token is not None:
                return token
        started, answer = await self._post("login", eka.LOGIN, self._body, {})
        return self._token("login", started, answer)

    async def _refresh(self, before: Token, refresh_token: str) -> Token | None:
        """Refresh by v2, by v1 where v2 is not there; None where that is refused."""
        body = {"refresh_token": refresh_token, "access_token": before.value}
        headers = {
            "Authorization": f"Bearer {before.value}",
            "Client-Id": self._body["client_id"],
        }
        started, answer = await self._post("refresh", eka.REFRESH, body, headers)
        if answer.status in _REFRESH_NOT_THERE:
            started, answer = await self._post("refresh_v1", eka.REFRESH_V1, body, {})
        if _outcome(answer.status) == "refused":
            return None
        return self._token("refresh", started, answer)

    async def _post(
        self, grant: str, path: str, body: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[float, LoginAnswer]:
        """Send one call; the time is from before it left, so a lifetime is never overrated."""
        started = self._clock.now()
        outcome = "failed"
        try:
            answer = await self._client.post(path, body, headers)
            outcome = _outcome(answer.status)
        finally:
            self._observer.fetched(self._credential, grant, outcome)
        return started, answer

    def _token(self, grant: str, started: float, answer: LoginAnswer) -> Token:
        if _outcome(answer.status) != "ok":
            raise self._failure(grant, answer)
        found = read_grant(answer.body)
        lines = b"Authorization: Bearer %b\r\nauth: %b\r\nclient-id: %b\r\n" % (
            found.access_token.encode(),
            found.access_token.encode(),
            self._body["client_id"].encode(),
        )
        lifetime = found.lifetime - min(_LEEWAY_AT_MOST, found.lifetime * _LEEWAY)
        return Token(
            found.access_token,
            lines,
            obtained_at=started,
            lifetime=lifetime,
            refresh=found.refresh_token,
        )

    def _failure(self, grant: str, answer: LoginAnswer) -> FetchError:
        refused = _outcome(answer.status) == "refused"
        advice = " Check its client_id and client_secret." if refused else ""
        return FetchError(
            f"Eka answered the {grant} of credential '{self._credential}' "
            f"with status {answer.status}.{advice}",
            refused=refused,
            retry_after=answer.retry_after,
        )


def _outcome(status: int) -> str:
    """Sort a status: `ok`, `refused` (the credentials are wrong) or `failed` (try again)."""
    if 200 <= status < 300:  # noqa: PLR2004 - the 2xx class
        return "ok"
    if 400 <= status < 500 and status not in _TEMPORARY:  # noqa: PLR2004 - the 4xx class
        return "refused"
    return "failed"


def read_grant(body: bytes) -> Grant:
    """Read a login's or refresh's answer; FetchError says what is wrong, never what stood there."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise FetchError("Eka's token answer is not JSON") from None
    if not isinstance(answer, dict):
        raise FetchError("Eka's token answer is not a JSON object")
    token, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise FetchError("Eka's token answer has no access_token that can be sent in a header")
    if not isinstance(refresh, str) or not _TOKEN.fullmatch(refresh):
        refresh = None
    return Grant(token, refresh, _lifetime(answer.get("expires_in")))


def _lifetime(expires_in: Any) -> float:
    if expires_in is None:
        return _LIFETIME_UNKNOWN
    if isinstance(expires_in, str) and re.fullmatch(r"[0-9]{1,18}", expires_in):
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        raise FetchError("Eka's token answer has an expires_in that is not a number of seconds")
    if not 0 < expires_in < math.inf:
        raise FetchError("Eka's token answer has an expires_in that is not above zero")
    return float(min(expires_in, _LIFETIME_AT_MOST))


def synthetic_answer(now: int) -> bytes:
    """Answer an SDK's login or refresh; `now` in seconds since the epoch.

    SDKs need a JWT-shaped token with `exp`, a refresh token, and an `expires_in` that keeps them
    from refreshing soon. The token is no secret and opens nothing: the proxy removes it.
    """
    lifetime = int(_LIFETIME_AT_MOST)
    parts = (
        {"alg": "none", "typ": "JWT"},
        {"iss": "ekeko", "sub": "synthetic", "iat": now, "exp": now + lifetime},
    )
    token = ".".join([*(_base64url(json.dumps(part).encode()) for part in parts), "c3ludGhldGlj"])
    return json.dumps(
        {
            "access_token": token,
            "refresh_token": "synthetic-refresh-token",
            "expires_in": lifetime,
            "refresh_expires_in": 30 * lifetime,
        }
    ).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
