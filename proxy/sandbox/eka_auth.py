"""Who is calling Eka: the three headers of a request, and the bodies of login and refresh."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.sandbox.dummies import (
    SANDBOX_CLIENT_ID,
    SANDBOX_CLIENT_SECRET,
    SANDBOX_LONG_LIVED_TOKEN,
    SANDBOX_SHARING_KEYS,
)
from proxy.sandbox.wire import Call, RefusedError, first_stray, folded

if TYPE_CHECKING:
    from proxy.sandbox.eka_tokens import TokenBook

_OWNED: Final = {"authorization": "authorization", "auth": "auth", "client-id": "client-id"}
# What belongs to Eka's gateway or to the proxy itself and has no business on this side.
_NEVER: Final = frozenset({"jwt-payload", "x-eka-workspace"})
_LOGIN_FIELDS: Final = frozenset(
    {"client_id", "client_secret", "sharing_key", "api_key", "user_token"}
)
_REFRESH_FIELDS: Final = frozenset({"refresh_token", "access_token"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from; `workspace` None is the client's own."""

    workspace: str | None


def authenticate(call: Call, tokens: "TokenBook") -> Caller:
    """Judge the credential headers of an ordinary call: 401, or 400 for what must never arrive."""
    refuse_strays(call)
    bearer, raw = call.values("authorization"), call.values("auth")
    if not bearer or not raw:
        raise RefusedError(401, "both Authorization and auth are needed")
    if bearer[0] != f"Bearer {raw[0]}":
        raise RefusedError(401, "Authorization is not Bearer with the token that auth carries")
    if raw[0] == SANDBOX_LONG_LIVED_TOKEN:
        return Caller(None)
    require_client_id(call)
    return Caller(tokens.judge(raw[0]).workspace)


def refuse_strays(call: Call) -> None:
    """Refuse doubled and imitated credential headers, and those that stay on the other side."""
    stray = first_stray(call.headers, _OWNED)
    if stray is not None:
        raise RefusedError(400, stray)
    for name, _ in call.headers:
        if folded(name) in _NEVER:
            raise RefusedError(400, f"{folded(name)} must never reach Eka")


def require_client_id(call: Call) -> None:
    """Refuse any client id but the configured one."""
    if call.values("client-id") != [SANDBOX_CLIENT_ID]:
        raise RefusedError(401, "Invalid JWT token or client ID")


def read_login(call: Call) -> str | None:
    """Return the workspace that a login asks for; None for the client's own."""
    if "?" in call.target:
        raise RefusedError(400, "a login has no query: credentials belong in the body")
    fields = _json_fields(call, _LOGIN_FIELDS)
    given = (fields.get("client_id"), fields.get("client_secret"))
    if given != (SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET):
        raise RefusedError(401, "wrong client_id or client_secret")
    keys = {fields[name] for name in ("sharing_key", "api_key") if name in fields}
    if not keys:
        return None
    workspaces = [name for name, key in SANDBOX_SHARING_KEYS.items() if keys == {key}]
    if not workspaces:
        raise RefusedError(401, "the sharing_key or api_key is unknown")
    return workspaces[0]


def read_refresh(call: Call) -> dict[str, str]:
    """Return the body's fields; `refresh_token` is there."""
    fields = _json_fields(call, _REFRESH_FIELDS)
    if "refresh_token" not in fields:
        raise RefusedError(400, "refresh_token is missing")
    return fields


def read_bearer(call: Call) -> str:
    """Return the token of the one Authorization header."""
    values = call.values("authorization")
    if len(values) != 1 or not values[0].startswith("Bearer "):
        raise RefusedError(401, "exactly one Authorization: Bearer is needed")
    return values[0].removeprefix("Bearer ")


def _json_fields(call: Call, known: frozenset[str]) -> dict[str, str]:
    if call.media_type != "application/json":
        raise RefusedError(415, "expected application/json")
    try:
        fields = json.loads(call.body.kept or b"")
    except ValueError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        raise RefusedError(400, "expected a JSON object of strings")
    # Keys are quoted back only by number: a misplaced secret may well be a key.
    if not known.issuperset(fields):
        raise RefusedError(400, f"{len(fields.keys() - known)} unknown fields")
    return fields
