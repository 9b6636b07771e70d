"""What a connection tells of who is at its other end."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proxy.identity import of_certificate, of_uid

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

_CREDENTIALS: Final = struct.Struct("iII")  # Linux's ucred: pid, uid, gid
# What Linux says of a user whom a user namespace does not know: any of them (user_namespaces(7)).
UNKNOWN_UID: Final = 65534
_NAMES: Final = ("DNS", "URI")


class Peer(NamedTuple):
    """The other end: how the log calls it, and the names of a caller that it has proven.

    `name` is its address, or the process at a unix socket; `who` is whose connections are counted
    together: the address, or the user.
    """

    name: str
    who: str
    proven: tuple[str, ...]


def of(transport: asyncio.BaseTransport) -> Peer:
    """See who is at the other end."""
    certificate = _certificate(transport.get_extra_info("ssl_object"))
    names = () if certificate is None else (of_certificate(certificate),)
    peername = transport.get_extra_info("peername")
    if isinstance(peername, tuple):
        return Peer(str(peername[0]), str(peername[0]), names)
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return Peer("gone", "gone", names)  # a TCP connection that was over before it was accepted
    if not hasattr(socket, "SO_PEERCRED"):
        return Peer("unix", "unix", names)
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    if uid != UNKNOWN_UID:
        names = (*names, of_uid(uid))
    return Peer(f"unix:pid={pid},uid={uid}", f"uid={uid}", names)


def _certificate(tls: Any) -> str | None:
    """Name a client certificate: its first DNS name or URI, or else its subject's common name.

    None if there is no certificate, or none of these in it.
    """
    found = None if tls is None else tls.getpeercert()
    return None if not found else next(_names(found), None)


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _NAMES and value:
            yield value
    for part in certificate.get("subject", ()):
        for kind, value in part:
            if kind == "commonName" and value:
                yield value
