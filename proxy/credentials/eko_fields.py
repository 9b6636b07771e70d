"""The literal text of the fields that a request_hash covers. Pure: no I/O, no clock.

Eko computes the hash over what it reads, so a number keeps its spelling (`50.0` is not `50`), and
a field that could be read two ways is refused rather than signed one way.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from proxy.errors import ProxyError, bad_request

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from proxy.credentials.base import Outgoing


class _Number(str):
    """A JSON number as it was spelled."""

    __slots__ = ()


def literal_fields(outgoing: Outgoing, names: Collection[str]) -> dict[str, str]:
    """Return the named fields that stand in the body (JSON or form) or the query.

    ProxyError: `bad_request` where a field stands twice with different texts,
    `signing_input_missing` where the body cannot be read.
    """
    pairs = list(_query_pairs(outgoing.query))
    if outgoing.body:
        pairs += _body_pairs(outgoing.body, outgoing.read.get("content-type", b""))
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in names:
            continue
        first = found.setdefault(name, value)
        if first is not value and not (isinstance(first, str) and first == value):
            raise bad_request(f"The signed field {name!r} stands twice, with different values.")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _body_pairs(body: bytes, content_type: bytes) -> Iterable[tuple[str, Any]]:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"application/x-www-form-urlencoded":
        return _query_pairs(body.decode(errors="surrogateescape"))
    try:
        # What is not a form is JSON: Eko wants it, and callers often leave the type out.
        value = json.loads(
            body.decode(),
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
            object_pairs_hook=_Pairs,
        )
    except (ValueError, RecursionError):
        raise ProxyError(
            "signing_input_missing",
            "The body is neither JSON nor a form, so the fields to sign cannot be read from it.",
        ) from None
    return value if isinstance(value, _Pairs) else ()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object's members, repeated names and all."""


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _query_pairs(text: str) -> Iterable[tuple[str, str]]:
    try:
        # Bytes that are not UTF-8 stay recognisable: they cannot be signed, only refused.
        return parse_qsl(
            text, keep_blank_values=True, errors="surrogateescape", max_num_fields=1000
        )
    except ValueError:
        raise bad_request("The form or query has more than 1000 fields.") from None
