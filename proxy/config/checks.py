"""Mistakes that show only where two places of a configuration are read together.

Each check takes settings that may lack what is wrong by itself (see `salvage`), and passes over
what rests on it.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

from proxy.addresses import is_overheard
from proxy.config import access
from proxy.config.problem import spell
from proxy.config.salvage import known
from proxy.config.translate import unknown
from proxy.credentials.eka import EkaSettings
from proxy.values import NO_CREDENTIAL
from proxy.vendors import eka
from proxy.vendors.owners import owner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from proxy.addresses import Listen, Origin
    from proxy.config.problem import KeyPath, Places, Problem
    from proxy.config.settings import Route, Settings
    from proxy.credentials.base import CredentialSettings
    from proxy.model import Model, Tls


def check(settings: Settings, names: Collection[str], places: Places) -> list[Problem]:
    """Run every check; `names` are the credentials' as written, the wrong ones too."""
    return [
        *unknown_credentials(settings, names, places),
        *forbidden_upstreams(settings, places),
        *forbidden_logins(settings, places),
        *foreign_origins(settings, places),
        *foreign_names(settings, places),
        *plain_detours(settings, places),
        *shared_prefixes(settings, places),
        *differing_modes(settings, places),
        *admin_clashes(settings, places),
        *access.check(settings, places),
    ]


_NO_CREDENTIALS: Final = (
    "is nowhere under 'credentials': expected a credential of this name there, or the word none"
)


def unknown_credentials(
    settings: Settings, names: Collection[str], places: Places
) -> list[Problem]:
    """Find routes whose credential is neither the name of one nor `none`."""
    choices = {*names, NO_CREDENTIAL}
    shown = sorted(spell((name,)) for name in choices)
    return [
        places.at_value(
            ("routes", name, "credential"),
            unknown(route.credential, shown, "a known credential") if names else _NO_CREDENTIALS,
        )
        for name, route in settings.routes.items()
        if known(route, "credential") and route.credential not in choices
    ]


def forbidden_upstreams(settings: Settings, places: Places) -> list[Problem]:
    """Find routes that would take a credential elsewhere than to its vendor."""
    return [
        places.at_value(
            ("routes", name, "upstream"),
            f"is not where the credential '{spell((route.credential,))}' may go: expected "
            f"{credential.vendor_origins}, or an origin that the credential lists in 'origins'",
        )
        for name, route in settings.routes.items()
        if known(route, "upstream", "credential")
        and (credential := _judge(settings, route.credential))
        and not credential.permits(route.upstream)
    ]


def forbidden_logins(settings: Settings, places: Places) -> list[Problem]:
    """Find logins elsewhere than at the vendor: they carry the client's secret."""
    return [
        places.at_value(
            ("credentials", name, "login_url"),
            f"is not where this credential may go: expected {eka.ORIGINS}, or an origin that it "
            "lists in 'origins'",
        )
        for name in settings.credentials
        if isinstance(credential := _judge(settings, name), EkaSettings)
        and known(credential, "login_url")
        and not credential.permits(credential.login_url)
    ]


def foreign_names(settings: Settings, places: Places) -> list[Problem]:
    """Find TLS that would take another's certificate for the vendor's."""
    return [
        places.at_value(
            (*path, "tls", "server_name"),
            f"is not the vendor's name: expected one of {credential.vendor_origins}",
        )
        for path, credential, origin, tls in _targets(settings)
        if known(tls, "server_name")
        and credential.permits(origin)
        and not credential.permits(origin, tls.server_name)
    ]


def _targets(
    settings: Settings,
) -> Iterator[tuple[KeyPath, CredentialSettings, Origin, Tls]]:
    """Yield where credentials go, and with what TLS."""
    for name, route in settings.routes.items():
        credential = _judge(settings, route.credential) if known(route, "credential") else None
        if credential and known(route, "upstream", "tls"):
            yield ("routes", name), credential, route.upstream, route.tls
    for name in settings.credentials:
        login = _judge(settings, name)
        if isinstance(login, EkaSettings) and known(login, "login_url", "tls"):
            yield ("credentials", name), login, login.login_url, login.tls


def foreign_origins(settings: Settings, places: Places) -> list[Problem]:
    """Find lists that would lend a credential to another vendor, or to another environment."""
    return [
        places.at_value(
            ("credentials", name, "origins", at),
            f"belongs to {owner(listed.host)}: expected no host of another vendor or environment, "
            "nor of object storage",
        )
        for name in settings.credentials
        if (credential := _judge(settings, name))
        for at, listed in enumerate(credential.origins)
        if credential.is_foreign(listed.host)
    ]


def plain_detours(settings: Settings, places: Places) -> list[Problem]:
    """Find plain http by an outbound proxy, which takes it off this machine."""
    ways: list[tuple[KeyPath, Model, str]] = [
        *((("routes", name), route, "upstream") for name, route in settings.routes.items()),
        *(
            (("credentials", name), login, "login_url")
            for name, login in settings.credentials.items()
            if isinstance(login, EkaSettings)
        ),
    ]
    return [
        places.at_value(
            (*path, "via"), f"takes plain http off this machine: expected an https {key}, or no via"
        )
        for path, model, key in ways
        if known(model, key, "via") and is_overheard(getattr(model, key), getattr(model, "via"))  # noqa: B009
    ]


def _judge(settings: Settings, name: str) -> CredentialSettings | None:
    """Give the credential if it can tell where it may go."""
    credential = settings.credentials.get(name)
    return credential if credential and known(credential, *credential.rests_on) else None


def shared_prefixes(settings: Settings, places: Places) -> list[Problem]:
    """Find routes that no request could tell apart."""
    return [
        places.at_key(
            ("routes", later),
            f"is served by '{spell(('routes', earlier))}' already: expected another prefix",
        )
        for (earlier, one), (later, other) in _sharing(settings)
        if known(one, "prefix")
        and known(other, "prefix")
        and one.prefix.rstrip("/") == other.prefix.rstrip("/")
    ]


def differing_modes(settings: Settings, places: Places) -> list[Problem]:
    """Find routes on one socket that disagree on its mode."""
    return [
        places.at_value(
            ("routes", later, "socket_mode"),
            f"differs from '{spell(('routes', earlier))}' on the same socket: expected the same",
        )
        for (earlier, one), (later, other) in _sharing(settings)
        if one.listen.path is not None
        and known(one, "socket_mode")
        and known(other, "socket_mode")
        and int(one.socket_mode, 8) != int(other.socket_mode, 8)
    ]


def _sharing(settings: Settings) -> Iterator[tuple[tuple[str, Route], tuple[str, Route]]]:
    """Yield the pairs of routes on one listener; those with port 0 get one each."""
    routes = [item for item in settings.routes.items() if known(item[1], "listen")]
    for earlier, later in combinations(routes, 2):
        if earlier[1].listen == later[1].listen and _is_fixed(later[1].listen):
            yield earlier, later


def _is_fixed(listen: Listen) -> bool:
    return listen.path is not None or listen.port != 0


def admin_clashes(settings: Settings, places: Places) -> list[Problem]:
    """Find routes on the admin pages' listener."""
    admin = settings.admin.listen if known(settings.admin, "listen") else None
    return [
        places.at_value(
            ("routes", name, "listen"),
            "is the admin listener's address as well: expected another, here or in admin.listen",
        )
        for name, route in settings.routes.items()
        if admin and known(route, "listen") and route.listen == admin and _is_fixed(admin)
    ]
