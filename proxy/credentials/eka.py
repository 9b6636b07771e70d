"""Eka's client credentials: a login, a short-lived token, its renewal."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from proxy.addresses import Origin, OriginField, ViaField, parse_origin
from proxy.credentials.base import Authorization, Credential, CredentialSettings, Outgoing
from proxy.credentials.eka_login import EkaLogin, synthetic_answer
from proxy.errors import ProxyError
from proxy.model import Model, Tls
from proxy.routing import loosely
from proxy.tokens import Token
from proxy.values import SECRET, Name, SecretField
from proxy.vendors import eka

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from proxy.credentials.base import Tools
    from proxy.credentials.login import LoginClient
    from proxy.tokens import TokenSlot


SHARING_KEY = Field(default=None, description="Another workspace's key, sent with the login")
API_KEY = Field(default=None, description="The name that sharing_key had before 2026")
USER_TOKEN = Field(default=None, description="Goes with api_key, for one user of the workspace")


class Workspace(Model):
    """Another workspace of the same client, chosen per request by `X-Eka-Workspace`."""

    sharing_key: SecretField | None = SHARING_KEY
    api_key: SecretField | None = API_KEY
    user_token: SecretField | None = USER_TOKEN

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if self.sharing_key is None and self.api_key is None:
            raise PydanticCustomError(
                "workspace", "selects no workspace: expected a 'sharing_key' or an 'api_key'"
            )
        return self


class EkaSettings(CredentialSettings):
    """`kind: eka`: Eka's client credentials, turned into short-lived tokens."""

    rests_on: ClassVar[tuple[str, ...]] = ("origins", "login_url")

    kind: Literal["eka"] = Field(description="eka")
    client_id: SecretField = Field(description=f"the API client's id, {SECRET}")
    client_secret: SecretField = Field(description=f"the API client's secret, {SECRET}")
    login_url: OriginField = Field(
        default=parse_origin("https://api.eka.care"), description="Where to log in"
    )
    sharing_key: SecretField | None = SHARING_KEY
    api_key: SecretField | None = API_KEY
    user_token: SecretField | None = USER_TOKEN
    workspaces: dict[Name, Workspace] = Field(
        default={}, description="More workspaces, by the name to send in X-Eka-Workspace"
    )
    tls: Tls = Field(default=Tls(), description="TLS of the login")
    via: ViaField | None = Field(
        default=None, description="The outbound HTTP proxy of the login: http://USER:PASS@HOST:PORT"
    )

    def is_vendor(self, origin: Origin) -> bool:
        if not eka.is_origin(origin):
            return False
        login = self.login_url
        return not eka.is_origin(login) or eka.is_production(login) == eka.is_production(origin)

    @property
    def issuer(self) -> str:
        return eka.NAME

    @property
    def vendor_origins(self) -> str:
        return f"{eka.ORIGINS} in the environment of login_url"


WORKSPACE_FIELD = "x-eka-workspace"


class EkaTokens(Credential):
    """Attaches a live token, one for each workspace, and answers the logins of vendor SDKs."""

    kind = "eka"
    owned = eka.TOKEN_FIELDS | {"client-id"}
    consumed = frozenset({WORKSPACE_FIELD})
    refusals = frozenset({401})

    def __init__(
        self,
        name: str,
        settings: EkaSettings,
        *,
        client: LoginClient,
        tools: Tools,
    ) -> None:
        self.name = name
        self.catalogue = eka.CATALOGUE
        self._settings = settings
        self._client = client
        self._tools = tools
        self._warm = True
        self._logins = self._make_logins()

    def permits(self, origin: Origin, name: str | None) -> bool:
        return self._settings.permits(origin, name)

    def enter(self) -> None:
        for login in self._logins.values():
            self._tools.tokens.fetch_with(login.key, login.fetch)
        self._slot(b"")  # the one that is kept warm

    def rekey(self) -> None:
        before, self._logins = self.token_keys, self._make_logins()
        self._tools.tokens.drop(before - self.token_keys)
        self.enter()

    def _make_logins(self) -> dict[bytes, EkaLogin]:
        spaces: dict[str, EkaSettings | Workspace] = {"": self._settings}
        spaces |= self._settings.workspaces
        return {name.encode(): self._login(space) for name, space in spaces.items()}

    async def authorise(self, outgoing: Outgoing) -> Authorization:
        return await self._slot(outgoing.read.get(WORKSPACE_FIELD, b"")).get()

    async def again(
        self, outgoing: Outgoing, refused: Authorization, answer: bytes
    ) -> Authorization | None:
        del answer  # the bodies of Eka's 401s differ from endpoint to endpoint
        assert isinstance(refused, Token)  # noqa: S101 - what `authorise` returned
        return await self._slot(outgoing.read.get(WORKSPACE_FIELD, b"")).replace(refused)

    def local_answer(self, method: str, path: str) -> bytes | None:
        # In whatever spelling an upstream might accept: a caller's dummy credentials must not be
        # tried at the vendor, nor the vendor's tokens handed to a caller.
        if method == "POST" and tuple(loosely(path)) in eka.TOKEN_PATHS:
            return synthetic_answer(self._tools.clock.wall_ms() // 1000)
        return None

    def trouble(self) -> str | None:
        return self._slot(b"").trouble()

    def token_expires_in(self) -> float | None:
        return self._slot(b"").expires_in()

    @property
    def token_keys(self) -> frozenset[Hashable]:
        """The keys of its tokens in the store."""
        return frozenset(login.key for login in self._logins.values())

    def token_slot(self, key: Hashable) -> TokenSlot | None:
        names = (name for name, login in self._logins.items() if login.key == key)
        return next(map(self._slot, names), None)

    def retire(self, successors: Collection[Credential]) -> None:
        self._warm = False
        kept = (each.token_keys for each in successors if isinstance(each, EkaTokens))
        self._tools.tokens.drop(self.token_keys.difference(*kept))

    async def close(self) -> None:
        await self._client.close()

    def _slot(self, workspace: bytes) -> TokenSlot:
        login = self._logins.get(workspace)
        if login is None:
            raise ProxyError(
                "unknown_workspace",
                f"X-Eka-Workspace names no workspace of the credential '{self.name}'.",
            )
        return self._tools.tokens.slot(login.key, login.fetch, warm=self._warm and not workspace)

    def _login(self, space: EkaSettings | Workspace) -> EkaLogin:
        settings = self._settings
        body = {
            "client_id": settings.client_id.reveal(),
            "client_secret": settings.client_secret.reveal(),
        }
        chosen = {
            name: secret.reveal()
            for name in ("sharing_key", "api_key", "user_token")
            if (secret := getattr(space, name)) is not None
        }
        return EkaLogin(
            self.name,
            body | chosen,
            key=_identity(str(settings.login_url), body["client_id"], chosen),
            client=self._client,
            clock=self._tools.clock,
            observer=self._tools.observer,
        )


def _identity(login: str, client_id: str, chosen: dict[str, str]) -> Hashable:
    """Name what a token is for. Keys of a cache live long, so secrets enter as a digest."""
    digest = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()
    return ("eka", login, client_id, digest)
