"""The registry of credential kinds: a third vendor is one new file here and one line in `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple, assert_never

from pydantic import Field

from proxy import tls
from proxy.credentials.bearer import Bearer, BearerSettings
from proxy.credentials.eka import EkaSettings, EkaTokens
from proxy.credentials.eko import EkoSettings, EkoSignatures
from proxy.credentials.login import LoginClient
from proxy.credentials.stamps import ClockStamps, StampStore

if TYPE_CHECKING:
    from proxy.clock import Clock
    from proxy.credentials.base import Credential
    from proxy.observe import Observer
    from proxy.tokens import TokenStore

AnySettings = Annotated[EkaSettings | BearerSettings | EkoSettings, Field(discriminator="kind")]


class Tools(NamedTuple):
    """What credentials work with. It outlives a reload, so tokens and stamps do too."""

    clock: Clock
    tokens: TokenStore
    stamps: StampStore
    observer: Observer


def build(name: str, settings: AnySettings, tools: Tools) -> Credential:
    """Make a credential of its settings; `secrets.SecretError` if a secret cannot be read."""
    match settings:
        case EkaSettings():
            client = LoginClient(
                settings.login_url.root,
                tls=tls.context(settings.tls),
                via=settings.via.reveal() if settings.via else None,
            )
            return EkaTokens(name, settings, client=client, tools=tools)
        case BearerSettings():
            return Bearer(settings)
        case EkoSettings(timestamps="clock"):
            return EkoSignatures(settings, lambda _: ClockStamps(tools.clock))
        case EkoSettings():
            return EkoSignatures(settings, tools.stamps.of)
        case _:
            assert_never(settings)
