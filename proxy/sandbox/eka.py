"""The stand-in of Eka Connect: issues tokens, and lets nothing pass without a good one."""

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from proxy.sandbox.base import StandIn
from proxy.sandbox.eka_answers import EkaAnswers
from proxy.sandbox.eka_auth import (
    authenticate,
    read_bearer,
    read_login,
    read_refresh,
    refuse_strays,
    require_client_id,
)
from proxy.sandbox.eka_tokens import Grant, TokenBook
from proxy.sandbox.faults import DescriptionError
from proxy.sandbox.wire import Call, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ACCOUNT: Final = "/connect-auth/v1/account/"
_DEFAULT_LIFETIME: Final = 1800  # seconds, what Eka's documents show
_DEFAULT_REFRESH_LIFETIME: Final = 7 * 24 * 3600


class ExpiresIn(Enum):
    """What a login answers as `expires_in` besides any JSON value put there by hand."""

    TRUE = "the real lifetime"
    OMIT = "no such field"


class EkaStandIn(StandIn):
    """Eka; lifetimes in seconds hold for tokens issued from then on.

    Switches: `refresh_v1`, `refresh_v2` (off: 404), `refresh_accepts_dead` (v2 takes an expired
    or revoked access token; which Eka does is unknown), `expires_in_answer`.
    """

    name: ClassVar[str] = "eka"

    def __init__(self, clock: "Callable[[], float]") -> None:
        super().__init__(clock)
        self.tokens = TokenBook(self.now)
        self.answers = EkaAnswers()
        self._settle()

    def _settle(self) -> None:
        self.token_lifetime: float = _DEFAULT_LIFETIME
        self.refresh_lifetime: float = _DEFAULT_REFRESH_LIFETIME
        self.expires_in_answer: object = ExpiresIn.TRUE
        self.refresh_v1 = self.refresh_v2 = self.refresh_accepts_dead = True
        self.logins = self.login_failures = self.refreshes_v1 = self.refreshes_v2 = 0

    def reset(self) -> None:
        """Return to how it was when it started: no token is known any more."""
        super().reset()
        self.tokens.clear()
        self.answers.clear()
        self._settle()

    def revoke_all(self, *, sessions: bool = False) -> None:
        """Revoke every access token; with `sessions` the refresh tokens as well."""
        self.tokens.revoke_all(sessions=sessions)

    def expire_all(self) -> None:
        """Let every live access token expire at this moment."""
        self.tokens.expire_all()

    def answer(self, call: Call) -> web.Response:
        """Judge one request; refusals are `{"code", "error"}` and quote nothing that arrived."""
        try:
            return self._dispatch(call)
        except RefusedError as refused:
            if call.path == f"{_ACCOUNT}login":
                self.login_failures += 1
            answer = {"code": refused.status, "error": refused.reason}
            return web.json_response(answer, status=refused.status)

    def _dispatch(self, call: Call) -> web.Response:
        match call.method, call.path.removeprefix(_ACCOUNT):
            case "POST", "login":
                response = self._login(call)
            case "POST", "refresh" if self.refresh_v1:
                response = self._refresh(call, None)
                self.refreshes_v1 += 1
            case "POST", "refresh-token" if self.refresh_v2:
                response = self._refresh_v2(call)
            case _ if call.path.startswith(_ACCOUNT):
                raise RefusedError(404, "no such operation")
            case _:
                caller = authenticate(call, self.tokens)
                response = self.answers.answer(call, caller.workspace)
        self.calls += 1
        return response

    def _login(self, call: Call) -> web.Response:
        grant = self.tokens.issue(read_login(call), self.token_lifetime, self.refresh_lifetime)
        self.logins += 1
        return self._granted(grant)

    def _refresh_v2(self, call: Call) -> web.Response:
        refuse_strays(call)
        require_client_id(call)
        response = self._refresh(call, read_bearer(call))
        self.refreshes_v2 += 1
        return response

    def _refresh(self, call: Call, bearer: str | None) -> web.Response:
        fields = read_refresh(call)
        # Where the body names an access token as well, it has to be the session's own.
        if bearer is not None and fields.get("access_token", bearer) != bearer:
            raise RefusedError(401, "access_token is not the one in Authorization")
        spent = self.tokens.spend(
            fields["refresh_token"], bearer, accept_dead=self.refresh_accepts_dead
        )
        return self._granted(
            self.tokens.issue(spent.workspace, self.token_lifetime, self.refresh_lifetime)
        )

    def _granted(self, grant: Grant) -> web.Response:
        answer: dict[str, object] = {
            "access_token": grant.access,
            "refresh_token": grant.refresh,
            "expires_in": self.expires_in_answer,
            "refresh_expires_in": int(self.refresh_lifetime),
        }
        if self.expires_in_answer is ExpiresIn.TRUE:
            answer["expires_in"] = int(self.token_lifetime)
        elif self.expires_in_answer is ExpiresIn.OMIT:
            del answer["expires_in"]
        return web.json_response(answer)

    def state(self) -> dict[str, Any]:
        """Return counters and settings, no token."""
        return super().state() | {
            "logins": self.logins,
            "login_failures": self.login_failures,
            "refreshes_v1": self.refreshes_v1,
            "refreshes_v2": self.refreshes_v2,
            "live_tokens": len(self.tokens.live()),
            "token_lifetime": self.token_lifetime,
            "refresh_lifetime": self.refresh_lifetime,
        }

    def levers(self) -> "Mapping[str, Callable[[dict[str, Any]], None]]":
        """Revoke, expire, and set the lifetime of tokens."""
        return {
            "revoke": lambda body: self.revoke_all(sessions=body.get("sessions") is True),
            "expire": lambda _: self.expire_all(),
            "lifetime": self._set_lifetime,
        }

    def _set_lifetime(self, body: dict[str, Any]) -> None:
        seconds = body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            raise DescriptionError("seconds: expected a number above 0")
        self.token_lifetime = seconds
