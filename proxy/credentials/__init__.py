"""The registry of credential kinds: a third vendor is one new file here and one line in `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from proxy import tls
from proxy.addresses import is_overheard
from proxy.credentials.base import Tools
from proxy.credentials.bearer import Bearer, BearerSettings
from proxy.credentials.eka import EkaSettings, EkaTokens
from proxy.credentials.eko import EkoSettings, EkoSignatures
from proxy.credentials.login import LoginClient
from proxy.credentials.passthrough import Passthrough
from proxy.credentials.stamps import ClockStamps

if TYPE_CHECKING:
    from proxy.credentials.base import Credential

__all__ = ["AnySettings", "Passthrough", "Tools", "build"]

AnySettings = Annotated[EkaSettings | BearerSettings | EkoSettings, Field(discriminator="kind")]


def build(name: str, settings: AnySettings, tools: Tools) -> Credential:
    """Make a credential of its settings; `secrets.SecretError` if a secret cannot be read.

    PermissionError if it would log in where it may not.
    """
    match settings:
        case EkaSettings():
            _check_login(name, settings)
            client = LoginClient(
                str(settings.login_url),
                tls=tls.context(settings.tls),
                server_name=settings.tls.server_name,
                via=settings.via,
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


def _check_login(name: str, settings: EkaSettings) -> None:
    """Hold the second line, behind `config.load`: the client's secret goes to Eka alone."""
    where = settings.login_url
    if is_overheard(where, settings.via) or not settings.permits(where, settings.tls.server_name):
        raise PermissionError(1, f"credentials.{name}: it may not log in at {where.root}")
