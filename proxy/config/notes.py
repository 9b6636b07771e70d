"""What is no mistake in a file but worth knowing: it may not work here and now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from proxy import tls
from proxy.config import access

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy.config.problem import KeyPath, Problem
    from proxy.config.settings import Settings
    from proxy.model import ListenerTls, Model, Tls


def notes(settings: Settings) -> list[Problem]:
    """List them in the file's order; this looks at the files and variables that it names."""
    found = [
        *_missing_secrets(settings),
        *_missing_files(settings),
        *_shared_files(settings),
        *_open_listeners(settings),
        *_idle_strips(settings),
    ]
    places = settings.places
    made = [
        *(places.at_value(path, text) for path, text in found),
        *(places.at_key(path, text) for path, text in _unused_credentials(settings)),
    ]
    return sorted(made, key=lambda note: (note.line, note.column))


def _missing_secrets(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for path, secret in settings.secrets():
        if missing := secret.missing():
            yield path, missing
    yield from access.key_flaws(settings, access.found)


def _missing_files(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for path, upstream in _tls(settings):
        yield from _not_there(path, upstream, ("ca", "cert", "key"))
    for path, own in _listener_tls(settings):
        yield from _unusable(path, own)


def _unusable(path: KeyPath, settings: ListenerTls) -> Iterator[tuple[KeyPath, str]]:
    missing = list(_not_there(path, settings, ("cert", "key", "client_ca")))
    yield from missing
    if not missing:
        try:
            tls.listener_context(settings)
        except tls.TlsError as error:
            yield path, f"will not do: {error}"


def _not_there(
    path: KeyPath, settings: Model, fields: Iterable[str]
) -> Iterator[tuple[KeyPath, str]]:
    for field in fields:
        name = getattr(settings, field)
        if name is not None and not Path(name).is_file():
            yield (*path, field), "names a file that is not there"


def _shared_files(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Find files of this user's that hold secrets and that others may read.

    What an orchestrator mounts is another user's, and its mode is not ours to set.
    """
    for path, secret in settings.secrets():
        file = settings.places.file if secret.kind == "literal" else secret.source
        if secret.kind != "env" and _is_shared(file):
            yield path, "is in a file that other users may read: expected mode 0600"
    pairs: list[tuple[KeyPath, Tls | ListenerTls]] = [*_tls(settings), *_listener_tls(settings)]
    for at, pair in pairs:
        if pair.key is not None and _is_shared(pair.key):
            yield (*at, "key"), "is a file that other users may read: expected mode 0600"


def _is_shared(file: str) -> bool:
    try:
        found = Path(file).stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and bool(found.st_mode & 0o044)


def _tls(settings: Settings) -> Iterator[tuple[KeyPath, Tls]]:
    for name, route in settings.routes.items():
        yield ("routes", name, "tls"), route.tls
    for name, credential in settings.credentials.items():
        if tls := getattr(credential, "tls", None):
            yield ("credentials", name, "tls"), tls


def _listener_tls(settings: Settings) -> Iterator[tuple[KeyPath, ListenerTls]]:
    for at, listener in settings.listeners.items():
        if listener.tls is not None:
            yield ("listeners", at, "tls"), listener.tls


def _open_listeners(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for path, listen in access.reachable(settings):
        if access.asks_for_certificates(settings, listen):
            continue
        if not settings.access.keys:
            yield path, "is open to other machines, and whoever reaches it has your credentials"
        elif settings.listener(listen).tls is None:
            yield path, "takes keys over the network as plain text: 'listeners' can give it TLS"


def _unused_credentials(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    used = {route.credential for route in settings.routes.values()}
    for name in settings.credentials:
        if name not in used:
            yield ("credentials", name), "is used by no route"


def _idle_strips(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for name, route in settings.routes.items():
        if route.strip_prefix and route.prefix == "/":
            yield ("routes", name, "strip_prefix"), "has no effect, as the prefix is '/'"
