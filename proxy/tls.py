"""TLS towards upstreams and token endpoints: verified always, never below TLS 1.2."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        try:
            made.load_cert_chain(settings.cert, settings.key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(
                f"the client certificate {settings.cert} with the key {settings.key} "
                f"cannot be used ({_why(error)})"
            ) from None
    return made


def _why(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return reason or type(error).__name__


def _no_password() -> str:
    """Refuse an encrypted key: OpenSSL would ask on the terminal and hang."""
    raise ssl.SSLError(1, "the key is encrypted")
