"""Eka's long-lived token: made in its console, sent as it is, never renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from proxy.credentials.base import Authorization, Credential, CredentialSettings, Outgoing
from proxy.scrub import needles
from proxy.values import SECRET, SecretField
from proxy.vendors import eka

if TYPE_CHECKING:
    from proxy.addresses import Origin
    from proxy.scrub import Needle


class BearerSettings(CredentialSettings):
    """`kind: bearer`: Eka's long-lived token."""

    kind: Literal["bearer"] = Field(description="bearer")
    token: SecretField = Field(description=f"the token from Eka's console, {SECRET}")

    def is_vendor(self, origin: Origin) -> bool:
        return eka.is_origin(origin)

    @property
    def issuer(self) -> str:
        return eka.NAME

    @property
    def vendor_origins(self) -> str:
        return eka.ORIGINS


class Bearer(Credential):
    """Attaches the configured token. A 401 with it is final: there is nothing to renew."""

    kind = "bearer"
    owned = eka.TOKEN_FIELDS

    def __init__(self, settings: BearerSettings) -> None:
        self._settings = settings
        self.catalogue = eka.CATALOGUE
        self.rekey()

    def permits(self, origin: Origin, name: str | None) -> bool:
        return self._settings.permits(origin, name)

    def rekey(self) -> None:
        token = self._settings.token.reveal().encode()
        self._lines = StaticLines(
            b"Authorization: Bearer %b\r\nauth: %b\r\n" % (token, token), needles(token)
        )

    async def authorise(self, outgoing: Outgoing) -> Authorization:  # noqa: ARG002
        return self._lines


class StaticLines(NamedTuple):
    """Header lines that are the same for every request."""

    lines: bytes
    needles: tuple[Needle, ...]

    def __repr__(self) -> str:
        return "StaticLines()"
