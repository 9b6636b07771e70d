"""TLS of either leg: OpenSSL between a TCP transport and a connection, and little else.

Event loops bring TLS of their own, which costs more than all else that is done for a request: it
reads until OpenSSL raises an exception, and copies what is written twice. This one asks how much
there is to read, and tells an end that the peer announced (close_notify) from one that anybody
could have forged (RFC 8446, 6.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from typing import Any, Final, cast

_RECORD: Final = 16 * 1024  # bytes; OpenSSL returns one record's at a time


class SecureTransport(asyncio.Transport, asyncio.Protocol):
    """The transport of one protocol, and itself the protocol of a TCP transport.

    `server_name` is whom a client expects; None on a server's side.
    """

    def __init__(
        self, protocol: asyncio.Protocol, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._tcp: asyncio.Transport | None = None
        self._established = False
        self._failure: OSError | None = None
        self._announced = False  # the peer has said that nothing more comes

    # What comes of the handshake.

    def established(self) -> None:
        """Give the protocol this transport: the peer is who it has to be."""
        self._protocol.connection_made(self)

    def refused(self, error: OSError) -> None:
        """Note what kept the handshake from ending (an ssl.SSLError, or the connection's end)."""

    # What the protocol calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._tcp is None or self._failure is not None:
            return
        try:
            sent = self._tls.write(data)
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._tcp.write(self._outgoing.read())

    def pause_reading(self) -> None:
        """Let no more come; what has come is passed on."""
        if self._tcp is not None:
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Let more come."""
        if self._tcp is not None:
            self._tcp.resume_reading()

    def close(self) -> None:
        """Announce the end, and close once everything has been sent."""
        if self._tcp is None or self._failure is not None:
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._tcp.close()

    def is_closing(self) -> bool:
        """Tell whether this is closed, or about to be."""
        return self._tcp is None or self._failure is not None or self._tcp.is_closing()

    def can_write_eof(self) -> bool:
        """Tell that `write_eof` may be called."""
        return True

    def write_eof(self) -> None:
        """Announce the end, and go on to hear the peer, which may be sending."""
        if self._tcp is None or self._failure is not None:
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._tcp.write_eof()

    def abort(self) -> None:
        """Close at once."""
        if self._tcp is not None:
            self._tcp.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the TLS connection (`ssl_object`), or what the TCP transport knows."""
        if name == "ssl_object":
            return self._tls
        return default if self._tcp is None else self._tcp.get_extra_info(name, default)

    # What the TCP transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._tcp = cast("asyncio.Transport", transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Decrypt, and pass on."""
        self._incoming.write(data)
        if not self._established:
            self._shake_hands()
        if self._established and self._failure is None:
            self._read()

    def eof_received(self) -> None:
        """Let the TCP transport close: `connection_lost` tells whether that was announced."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol; an end that was not announced is an error."""
        self._tcp = None
        if exc is None and not self._announced:
            exc = ConnectionResetError(errno.ECONNRESET, "the connection ended unannounced")
        if self._established:
            self._protocol.connection_lost(self._failure or exc)
        else:
            self.refused(self._failure or OSError(errno.ECONNRESET, "it ended the TLS handshake"))

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

    # OpenSSL.

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._established = True
            self.established()
        self._flush()

    def _read(self) -> None:
        """Pass on whatever can be decrypted.

        OpenSSL is asked for no more than it has: to be told that it has none is an exception.
        """
        pieces: list[bytes] = []
        try:
            while self._incoming.pending or self._tls.pending():
                piece = self._tls.read(_RECORD)
                if not piece:
                    self._announced = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # a part of a record
        except ssl.SSLError as error:
            self._fail(error)
        if self._outgoing.pending:
            self._flush()
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._announced:
            self._protocol.eof_received()
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._tcp is not None:
            self._tcp.write(self._outgoing.read())

    def _fail(self, error: OSError) -> None:
        self._failure = error
        self._flush()  # what there is to say of it
        if self._tcp is not None:
            self._tcp.close()
