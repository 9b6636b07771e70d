"""The mappings of a configuration: what settings are built from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

# Plugins that happen to be installed would see every value, secrets among them, and looking for
# them takes a tenth of a start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from proxy import secrets
from proxy.addresses import HostField
from proxy.values import FileName

if TYPE_CHECKING:
    from collections.abc import Iterator


class Model(BaseModel):
    """A mapping of the configuration: no unknown keys, no guessed types, nothing changed later."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    def secrets(self) -> Iterator[tuple[tuple[str, ...], secrets.Secret]]:
        """Yield every secret in here with its key path."""
        yield from _secrets_in(self, ())


def _secrets_in(
    mapping: Model | dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], secrets.Secret]]:
    for key, value in mapping.items() if isinstance(mapping, dict) else mapping:
        if isinstance(value, secrets.Secret):
            yield (*path, key), value
        elif isinstance(value, Model | dict):
            yield from _secrets_in(value, (*path, key))


class Tls(Model):
    """TLS towards an upstream: files in PEM form."""

    ca: FileName | None = Field(default=None, description="Authorities to trust; null: the usual")
    cert: FileName | None = Field(default=None, description="A client certificate")
    key: FileName | None = Field(default=None, description="The client certificate's key")
    server_name: HostField | None = Field(
        default=None, description="The name to ask for and to verify; null: the upstream's host"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise PydanticCustomError(
                "tls", "has one of 'cert' and 'key': expected both, or neither"
            )
        return self


class ListenerTls(Model):
    """TLS towards callers: files in PEM form."""

    cert: FileName = Field(description="the listener's certificate, with those that vouch for it")
    key: FileName = Field(description="the certificate's key")
    client_ca: FileName | None = Field(
        default=None,
        description="Authorities of callers' certificates, which are then required; null: none are",
    )
