"""The tokens that the Eka stand-in has issued, and what became of each."""

import base64
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.sandbox.wire import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Grant:
    """One access token and the refresh token that came with it; `*_until` in wall seconds.

    `workspace` is None for the client's own workspace.
    """

    workspace: str | None
    access: str
    access_until: float
    refresh: str
    refresh_until: float
    access_revoked: bool = False
    refresh_revoked: bool = False
    refresh_used: bool = False


class TokenBook:
    """Issues and judges tokens; every refusal is a RefusedError 401 that quotes no token."""

    def __init__(self, clock: "Callable[[], float]") -> None:
        self._clock = clock
        self._by_access: dict[str, Grant] = {}
        self._by_refresh: dict[str, Grant] = {}

    def issue(self, workspace: str | None, lifetime: float, refresh_lifetime: float) -> Grant:
        """Make a fresh pair; lifetimes in seconds."""
        now = self._clock()
        grant = Grant(
            workspace,
            _jwt_shaped(now + lifetime),
            now + lifetime,
            secrets.token_urlsafe(32),
            now + refresh_lifetime,
        )
        self._by_access[grant.access] = self._by_refresh[grant.refresh] = grant
        return grant

    def judge(self, access: str) -> Grant:
        """Return the grant of an access token that is good now."""
        grant = self._by_access.get(access)
        if grant is None:
            raise RefusedError(401, "the access token is unknown")
        if grant.access_revoked:
            raise RefusedError(401, "the access token was revoked")
        if self._clock() >= grant.access_until:
            raise RefusedError(401, "the access token has expired")
        return grant

    def spend(self, refresh: str, bearer: str | None, *, accept_dead: bool) -> Grant:
        """Use up a refresh token and return its grant.

        `bearer` must be the access token of the same grant (None: not asked for);
        `accept_dead` says whether one that is expired or revoked will do.
        """
        grant = self._by_refresh.get(refresh)
        if grant is None:
            raise RefusedError(401, "the refresh token is unknown")
        if grant.refresh_used:
            raise RefusedError(401, "the refresh token was used before")
        if grant.refresh_revoked:
            raise RefusedError(401, "the refresh token was revoked")
        if self._clock() >= grant.refresh_until:
            raise RefusedError(401, "the refresh token has expired")
        if bearer is not None and bearer != grant.access:
            raise RefusedError(401, "the access token is not the one of this session")
        if bearer is not None and not accept_dead:
            self.judge(bearer)
        grant.refresh_used = True
        return grant

    def live(self) -> list[Grant]:
        """Return the grants whose access token is good now."""
        now = self._clock()
        return [
            g for g in self._by_access.values() if not g.access_revoked and now < g.access_until
        ]

    def revoke_all(self, *, sessions: bool = False) -> None:
        """Revoke every access token; with `sessions` the refresh tokens as well."""
        for grant in self._by_access.values():
            grant.access_revoked = True
            grant.refresh_revoked = grant.refresh_revoked or sessions

    def expire_all(self) -> None:
        """Let every live access token expire at this moment; refresh tokens stay good."""
        for grant in self.live():
            grant.access_until = self._clock()

    def clear(self) -> None:
        """Forget everything: all tokens become unknown."""
        self._by_access.clear()
        self._by_refresh.clear()


def _jwt_shaped(until: float) -> str:
    """Return three base64url parts with `exp`, as clients expect; the signature is noise."""
    claims = {"sub": "sandbox", "exp": int(until), "jti": secrets.token_hex(16)}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join(_base64url(part) for part in [*parts, secrets.token_bytes(32)])


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
