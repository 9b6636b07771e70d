"""Whose a host is: no list of origins lends a credential to another vendor or environment."""

from __future__ import annotations

import re
from typing import Final

from proxy.vendors import eka, eko

# Object storage takes no token, and writes into its logs what it is sent.
_STORAGE: Final = re.compile(
    r"(?:.+\.)?s3[.-](?:.+\.)?amazonaws\.com(?:\.cn)?"
    r"|(?:.+\.)?storage\.googleapis\.com|.+\.blob\.core\.windows\.net"
)


def owner(host: str) -> str | None:
    """Name the vendor and environment that a host belongs to; None if it is nobody's known."""
    name = host.lower().rstrip(".")
    if name.endswith(".eka.care"):
        return eka.NAME
    for environment, theirs in eko.HOSTS.items():
        if name == theirs:
            return eko.name(environment)
    return "object storage" if _STORAGE.fullmatch(name) else None
