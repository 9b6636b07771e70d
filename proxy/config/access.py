"""Mistakes in who may call: what `access`, `listeners` and `callers` say together.

As in `checks`, settings may lack what is wrong by itself, and what rests on it is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from proxy import identity
from proxy.addresses import parse_listen
from proxy.config.problem import spell
from proxy.config.salvage import known
from proxy.config.translate import unknown
from proxy.guard import is_loopback
from proxy.peer import UNKNOWN_UID
from proxy.secrets import SecretError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.addresses import Listen
    from proxy.config.problem import KeyPath, Places, Problem
    from proxy.config.settings import Access, Admin, Route, Settings
    from proxy.secrets import Secret

_OTHERS_MAY_WRITE: Final = 0o002  # which is what connecting takes (unix(7))
OPEN: Final = (
    "is open to other machines, and whoever reaches it has your credentials: expected access.keys, "
    "a client_ca for this address under 'listeners', or access.unauthenticated: true"
)


def check(settings: Settings, places: Places) -> list[Problem]:
    """Run every check of who may call."""
    return [
        *(places.at_value(path, wrong) for path, wrong in key_flaws(settings, _written)),
        *unknown_users(settings, places),
        *stray_listeners(settings, places),
        *unknown_callers(settings, places),
        *(places.at_value(path, OPEN) for path in open_listeners(settings)),
        *open_sockets(settings, places),
    ]


class _Served(NamedTuple):
    """Something that serves callers, and where its keys stand."""

    path: KeyPath
    model: Route | Admin

    @property
    def listen(self) -> Listen | None:
        return self.model.listen if known(self.model, "listen") else None


def _all_served(settings: Settings) -> Iterator[_Served]:
    for name, route in settings.routes.items():
        yield _Served(("routes", name), route)
    yield _Served(("admin",), settings.admin)


def key_flaws(
    settings: Settings, reveal: Callable[[Secret], str | None]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find keys that are too short, or the same as another; `reveal` gives those to be judged."""
    if known(settings.access, "keys"):
        values = {name: reveal(secret) for name, secret in settings.access.keys.items()}
        there = {name: value for name, value in values.items() if value is not None}
        for name, wrong in identity.flaws(there):
            yield ("access", "keys", name), wrong


def _written(secret: Secret) -> str | None:
    return secret.reveal() if secret.kind == "literal" else None


def found(secret: Secret) -> str | None:
    """Give a secret's value if there is one here and now."""
    try:
        return secret.reveal()
    except SecretError:
        return None


def unknown_users(settings: Settings, places: Places) -> Iterator[Problem]:
    """Find the number that stands for every user whom a user namespace does not know."""
    if known(settings.access, "uids") and UNKNOWN_UID in settings.access.uids:
        path = ("access", "uids", settings.access.uids.index(UNKNOWN_UID))
        what = "is what Linux says of any user whom a container does not know: expected another"
        yield places.at_value(path, what)


def stray_listeners(settings: Settings, places: Places) -> Iterator[Problem]:
    """Find what is said of a listener that there is not, or twice of one."""
    served = list(_all_served(settings))
    if not all(known(each.model, "listen") for each in served):
        return
    there = {each.listen for each in served}
    said: dict[Listen, str] = {}
    for written in settings.listeners:
        listen, path = parse_listen(written), ("listeners", written)
        if listen not in there:
            what = "is where nothing listens: expected the address of a route, or admin.listen"
            yield places.at_key(path, what)
        elif listen in said:
            before = spell(("listeners", said[listen]))
            yield places.at_key(path, f"is the same address as '{before}': expected it once")
        said[listen] = written


def unknown_callers(settings: Settings, places: Places) -> Iterator[Problem]:
    """Find callers that can never be known where they are to be served."""
    for served in _all_served(settings):
        if not known(served.model, "callers"):
            continue
        for index, name in enumerate(served.model.callers or ()):
            if wrong := _why_unknown(settings, served.listen, name):
                yield places.at_value((*served.path, "callers", index), wrong)


def _why_unknown(settings: Settings, listen: Listen | None, name: str) -> str | None:
    if identity.is_uid(name):
        return _why_no_user(settings.access, listen, name)
    if identity.is_certificate(name):
        if listen is None or asks_for_certificates(settings, listen) is not False:
            return None
        return (
            "is a certificate's name, and this listener asks for none: "
            "expected a client_ca for its address under 'listeners'"
        )
    access = settings.access
    if not known(access, "keys") or name in access.keys:
        return None
    if not access.keys:
        return "is not in access.keys: expected a key of this name there"
    return unknown(name, access.keys, "a name in access.keys")


def _why_no_user(access: Access, listen: Listen | None, name: str) -> str | None:
    if listen is not None and listen.path is None:
        return "is a user, whom only a unix socket can tell: expected one in 'listen'"
    if not known(access, "uids") or name in map(identity.of_uid, access.uids):
        return None
    return "is not in access.uids: expected a user that stands there"


def asks_for_certificates(settings: Settings, listen: Listen) -> bool | None:
    """Tell whether callers at an address need a certificate; None if that cannot be told."""
    listener = settings.listener(listen)
    if not known(listener, "tls"):
        return None
    return listener.tls is not None and listener.tls.client_ca is not None


def open_listeners(settings: Settings) -> Iterator[KeyPath]:
    """Find listeners that other machines reach and that know nobody, if that is not wanted."""
    access = settings.access
    if not known(access, "keys", "unauthenticated") or access.keys or access.unauthenticated:
        return
    for path, listen in reachable(settings):
        if asks_for_certificates(settings, listen) is False:
            yield path


def reachable(settings: Settings) -> Iterator[tuple[KeyPath, Listen]]:
    """List the listeners that other machines may reach."""
    for served in _all_served(settings):
        listen = served.listen
        if listen is not None and listen.path is None and not is_loopback(listen.host):
            yield (*served.path, "listen"), listen


def open_sockets(settings: Settings, places: Places) -> Iterator[Problem]:
    """Find unix sockets that any user may use and that know nobody, if that is not wanted."""
    access = settings.access
    if not known(access, "keys", "uids", "unauthenticated"):
        return
    if access.keys or access.uids or access.unauthenticated:
        return
    for name, route in settings.routes.items():
        if not known(route, "listen", "socket_mode") or route.listen.path is None:
            continue
        others = int(route.socket_mode, 8) & _OTHERS_MAY_WRITE
        if others and asks_for_certificates(settings, route.listen) is False:
            yield places.at_value(
                ("routes", name, "socket_mode"),
                "lets every user of this machine in, who then has your credentials: expected "
                "access.uids or access.keys, a narrower mode, or access.unauthenticated: true",
            )
