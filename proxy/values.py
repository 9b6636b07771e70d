"""Plain values of a configuration, each with its check and its JSON Schema.

A check's message goes behind "FILE:LINE:COLUMN: key.path: " and says what is wrong and what is
expected. It never quotes the value: what was typed in the wrong place may be a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, PlainValidator, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from proxy import identity, secrets
from proxy.routing import Operations

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZE = re.compile(r"([0-9]{1,12})\s*(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LONGEST = 10**9  # seconds: some thirty years
_HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, 5.6.2


def parse_size(value: Any) -> int:
    """Read a number of bytes, plain or with B, KiB, MiB or GiB."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        return int(found[1]) * _UNITS[found[2]]
    raise PydanticCustomError(
        "size", "is not a size: expected bytes, or a number with KiB, MiB or GiB, such as 64MiB"
    )


def parse_seconds(value: Any) -> float:
    """Read a span of time that is not nothing."""
    if parse_seconds_or_none_at_all(value) > 0:
        return float(value)
    raise PydanticCustomError("seconds", "is too short: expected a number of seconds above 0")


def parse_seconds_or_none_at_all(value: Any) -> float:
    """Read a span of time that may be 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= _LONGEST:
        return float(value)
    raise PydanticCustomError(
        "seconds", "is not a duration: expected a number of seconds, such as 5 or 0.5"
    )


def parse_key(value: Any) -> secrets.Secret:
    """Read a caller's key, which nobody may guess."""
    secret = secrets.parse(value)
    if secret.kind == "literal":
        for _, wrong in identity.flaws({"": secret.reveal()}):
            raise PydanticCustomError("key", "{wrong}", {"wrong": wrong})
    return secret


def parse_operations(value: Any) -> Operations:
    """Read `METHOD[,METHOD] PATTERN`."""
    if isinstance(value, Operations):
        return value
    try:
        return Operations.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise PydanticCustomError(
            "operations",
            "is not an operation: expected METHOD[,METHOD] /PATTERN, such as 'GET,POST /v1/**'",
        ) from None


def parse_prefix(value: Any) -> str:
    """Read a path prefix: `/` or `/segments` without anything that needs decoding."""
    plain = isinstance(value, str) and re.fullmatch(
        r"/|(?:/[A-Za-z0-9\-._~!$&'()*+,=:@]+)+/?", value
    )
    if plain and not any(part in {".", ".."} for part in value.split("/")):
        return str(value)
    raise PydanticCustomError(
        "prefix", "is not a path prefix: expected '/' or '/segment[/segment…]' of plain characters"
    )


def matching(pattern: str, wrong: str, kind: str = "text") -> Callable[[str], str]:
    """Make a check of a text's shape; `wrong` is what it says, `kind` the error's type."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value):
            return value
        raise PydanticCustomError(kind, "{wrong}", {"wrong": wrong})

    return check


def text(description: str, *examples: str) -> WithJsonSchema:
    """Describe a text in JSON Schema."""
    return WithJsonSchema(
        {"type": "string", "description": description, "examples": list(examples)}
    )


SECRET = "{env: NAME}, {file: PATH} or text"  # noqa: S105 - how to write one
SECRET_SCHEMA = WithJsonSchema(
    {
        "description": f"A secret: {SECRET}",
        "oneOf": [
            {"type": "string", "minLength": 1},
            *(
                {
                    "type": "object",
                    "properties": {source: {"type": "string", "minLength": 1}},
                    "required": [source],
                    "additionalProperties": False,
                }
                for source in ("env", "file")
            ),
        ],
    }
)

SecretField = Annotated[secrets.Secret, PlainValidator(secrets.parse), SECRET_SCHEMA]
KeyField = Annotated[secrets.Secret, PlainValidator(parse_key), SECRET_SCHEMA]
OperationsField = Annotated[
    Operations,
    PlainValidator(parse_operations),
    text("METHOD[,METHOD] /PATTERN: * within one segment, ** any number of them", "POST /**"),
]
PrefixField = Annotated[
    str, PlainValidator(parse_prefix), text("A path prefix, on a segment boundary", "/v1")
]
SizeField = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema({"type": ["integer", "string"], "description": "Bytes, or such as 64MiB"}),
]
Seconds = Annotated[
    float,
    PlainValidator(parse_seconds),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]
SecondsOrZero = Annotated[
    float,
    PlainValidator(parse_seconds_or_none_at_all),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
NO_CREDENTIAL = "none"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_check_name = matching(
    _NAME, "is not a name: expected letters, digits, '-', '_' or '.', at most 63 of them", "name"
)


def _check_credential_name(value: str) -> str:
    if value == NO_CREDENTIAL:
        raise PydanticCustomError("name", "is reserved: expected another name than 'none'")
    return _check_name(value)


# Names are echoed in messages, logs and headers.
Name = Annotated[
    str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$"})
]
CredentialName = Annotated[
    str,
    AfterValidator(_check_credential_name),
    WithJsonSchema({"type": "string", "pattern": f"^(?!none$){_NAME}$"}),
]
_UID = r"uid:(0|[1-9][0-9]{0,9})"
_CERTIFICATE = r"cert:[^\x00-\x1f\x7f]{1,255}"
_CALLER = rf"{_NAME}|{_UID}|{_CERTIFICATE}"
CallerName = Annotated[
    str,
    AfterValidator(
        matching(
            _CALLER, "is not a caller: expected a name of access.keys, uid:NUMBER or cert:NAME"
        )
    ),
    WithJsonSchema({"type": "string", "pattern": f"^({_CALLER})$"}),
]
T = TypeVar("T")
# YAML has lists; what is kept is frozen.
Items = Annotated[tuple[T, ...], Strict(False)]
HeaderName = Annotated[
    str,
    AfterValidator(matching(_HEADER, "is not a header's name: expected letters, digits, '-', '_'")),
    WithJsonSchema({"type": "string", "pattern": f"^{_HEADER}$"}),
]
Word = Annotated[
    str,
    AfterValidator(matching(r"[!-~]+", "is not a word: expected ASCII text without spaces")),
    WithJsonSchema({"type": "string", "pattern": "^[!-~]+$"}),
]
FileName = Annotated[
    str,
    AfterValidator(matching(r"[^\x00-\x1f]+", "is not a file's name: expected a path")),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
SocketMode = Annotated[
    str,
    AfterValidator(matching(r"0?[0-7]{3}", "is not a file mode: expected text such as '0600'")),
    WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"}),
]
