"""Who calls, and whether a listener serves them. Pure: no I/O, no clock.

A caller is known by one of three names:
- `NAME`, by the key of that name in `access.keys`, which it sends in X-Ekeko-Key with each request;
- `uid:NUMBER`, by the user whose process is at the other end of a unix socket;
- `cert:NAME`, by the client certificate of its connection.
The last two belong to a connection, and are established once for it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from proxy.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

KEY_FIELD: Final = "x-ekeko-key"
KEY_AT_LEAST: Final = 16  # characters, of which nobody guesses the right ones
_UID: Final = "uid:"
_CERTIFICATE: Final = "cert:"

# RFC 9110, 11.6.1 asks every 401 for a challenge. The scheme is our own: none that is registered
# has the key in a field by itself, which leaves Authorization to the vendor's.
CHALLENGE: Final = b'WWW-Authenticate: Ekeko-Key realm="ekeko", field="X-Ekeko-Key"\r\n'


def of_uid(uid: int) -> str:
    """Name a user's processes."""
    return f"{_UID}{uid}"


def of_certificate(name: str) -> str:
    """Name the holder of a client certificate."""
    return f"{_CERTIFICATE}{name}"


def is_uid(name: str) -> bool:
    """Tell whether this names a user's processes."""
    return name.startswith(_UID)


def is_certificate(name: str) -> bool:
    """Tell whether this names the holder of a client certificate."""
    return name.startswith(_CERTIFICATE)


class Keys:
    """The keys of `access.keys`, as digests: what is compared then has one length.

    They have no `flaws`: whoever brings them has seen to that.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._digests: dict[str, bytes] = {}
        self.renew(values)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def renew(self, values: Mapping[str, str]) -> None:
        """Take new values of keys."""
        self._digests.update((name, _digest(value.encode())) for name, value in values.items())

    def find(self, given: bytes) -> str | None:
        """Return the name of a key, None if there is no such key.

        It is compared with all of them, and to the end, so the time tells nothing of any.
        """
        digest, found = _digest(given), None
        for name, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found


def flaws(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Say what is wrong with keys, by their names, and never show one."""
    for name, value in values.items():
        twins = [other for other, its in values.items() if its == value and other != name]
        if len(value) < KEY_AT_LEAST:
            yield name, f"is too short: expected {KEY_AT_LEAST} characters or more"
        elif twins:
            yield name, f"is the same key as '{twins[0]}': expected one of its own"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Callers:
    """Tells who calls at one listener.

    `uids` are the users it knows, `certificates` tells whether it knows those who have one.
    """

    def __init__(
        self, keys: Keys, uids: Collection[int] = (), *, certificates: bool = False
    ) -> None:
        self._keys = keys
        self._users = frozenset(map(of_uid, uids))
        self._certificates = certificates

    def identify(self, key: bytes | None, proven: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that a caller is known by, at least one; ProxyError `caller_unknown`.

        `key` is what stands in X-Ekeko-Key, `proven` are the names that belong to the connection.
        Whoever sends a key means it: a wrong one is refused, whatever else is known.
        """
        names = tuple(filter(self._knows, proven))
        if key is not None and self._keys:
            name = self._keys.find(key)
            if name is None:
                raise ProxyError("caller_unknown", "X-Ekeko-Key holds none of the proxy's keys.")
            return (name, *names)
        if not names:
            raise ProxyError("caller_unknown", f"The proxy does not know you: {self._expected}.")
        return names

    def _knows(self, name: str) -> bool:
        return name in self._users or (self._certificates and is_certificate(name))

    @property
    def _expected(self) -> str:
        ways = [
            ("one of its keys in X-Ekeko-Key", self._keys),
            ("a process of a user in access.uids", self._users),
            ("a client certificate", self._certificates),
        ]
        return "expected " + (" or ".join(way for way, open_ in ways if open_) or "nobody")


def serve(names: tuple[str, ...], served: Collection[str] | None) -> str:
    """Return the name by which a caller is served; ProxyError `caller_not_allowed`.

    `served` are those that a route serves, None for all that are known.
    """
    if served is None:
        return names[0]
    for name in names:
        if name in served:
            return name
    raise ProxyError("caller_not_allowed", "This is not served to you: see its `callers`.")
