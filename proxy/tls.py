"""TLS towards upstreams and token endpoints, verified always, and towards callers: 1.2 or later."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.model import ListenerTls as ListenerSettings
    from proxy.model import Tls


class TlsError(Exception):
    """A certificate file that cannot be used. The text names the file."""


def context(settings: Tls) -> ssl.SSLContext:
    """Make a client context: the system's CAs or the given file, and the client certificate."""
    try:
        made = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"the CA file {settings.ca} cannot be used ({_why(error)})") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    if settings.cert is not None:
        _load_pair(made, "client certificate", settings.cert, settings.key)
    return made


class ListenerTls:
    """TLS towards callers; `context` is made anew when its files change. All of it may block."""

    def __init__(self, settings: ListenerSettings) -> None:
        """Read the files; TlsError if they will not do."""
        self._settings = settings
        self._seen = self._look()
        self.context = listener_context(settings)

    def refresh(self) -> bool:
        """Read the files again if they have changed; TlsError as above, and then nothing changes.

        True if there is a new context. Files that will not do are told of once.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        self.context = listener_context(self._settings)
        return True

    def _look(self) -> list[tuple[int, int, int] | None]:
        """Tell what shows that a file is another, or has changed."""
        names = (self._settings.cert, self._settings.key, self._settings.client_ca)
        return [None if name is None else _stamp(Path(name)) for name in names]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def listener_context(settings: ListenerSettings) -> ssl.SSLContext:
    """Make a server context, which asks for a client certificate if there is a `client_ca`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    _load_pair(made, "certificate", settings.cert, settings.key)
    if settings.client_ca is not None:
        try:
            made.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(
                f"the CA file {settings.client_ca} cannot be used ({_why(error)})"
            ) from None
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _load_pair(made: ssl.SSLContext, what: str, cert: str, key: str | None) -> None:
    try:
        made.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"the {what} {cert} with the key {key} cannot be used ({_why(error)})"
        ) from None


def _why(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return reason or type(error).__name__


def _no_password() -> str:
    """Refuse an encrypted key: OpenSSL would ask on the terminal and hang."""
    raise ssl.SSLError(1, "the key is encrypted")
