"""Looks for secrets in output, in every form that a program might give them by accident."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Mapping

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def forms(secret: str) -> dict[str, bytes]:
    """List how a secret may stand in a text, by the form's name."""
    plain = secret.encode()
    found = {
        "plain": plain,
        "hex": plain.hex().encode(),
        "hex in capitals": plain.hex().upper().encode(),
        "hex with colons": plain.hex(":").encode(),
        "percent": quote(secret, safe="").encode(),
        "percent in small letters": quote(secret, safe="").lower().encode(),
        "percent of a path": quote(secret).encode(),
        "percent of a form": quote_plus(secret).encode(),
        "percent of all": b"".join(b"%%%02X" % byte for byte in plain),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1].encode(),
        "repr": repr(secret)[1:-1].encode(),
        "repr of bytes": repr(plain)[2:-1].encode(),
    }
    for before in range(3):  # where it begins within the three bytes that make four characters
        whole = base64.b64encode(bytes(before) + plain)
        # The first characters hold bits of what stands before, the last ones of what is behind.
        inner = whole[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
        found[f"base64 at {before}"] = inner
        found[f"url-safe base64 at {before}"] = inner.translate(_URL_SAFE)
    return found


def found_in(text: bytes, secrets: Mapping[str, str]) -> list[str]:
    """Name the secrets that a text holds, and in which forms."""
    return [
        f"{name}, {form}"
        for name, secret in secrets.items()
        for form, look in forms(secret).items()
        if look in text or (form == "percent in small letters" and look in text.lower())
    ]
