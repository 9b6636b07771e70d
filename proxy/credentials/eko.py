"""Eko's signatures: a fresh `secret-key` on every request, a `request_hash` where money moves."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from proxy.credentials.base import Authorization, Credential, CredentialSettings, Outgoing
from proxy.credentials.eko_fields import literal_fields
from proxy.errors import ProxyError, bad_request
from proxy.headers import fold
from proxy.model import Model
from proxy.routing import Operations, loosely
from proxy.scrub import needles
from proxy.values import SECRET, HeaderName, Items, OperationsField, SecretField, Word
from proxy.vendors import eko

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.addresses import Origin
    from proxy.credentials.stamps import Stamps
    from proxy.scrub import Needle


class HeaderField(Model):
    """A signed field that reaches the proxy in a request header, which is then removed."""

    header: HeaderName = Field(description="the header's name")


def _parse_field(value: Any) -> str | HeaderField:
    """Read a signed field: its name in the body or query, or `{header: NAME}`."""
    if isinstance(value, str) and value:
        return value
    try:
        return HeaderField.model_validate(value)
    except ValidationError:
        raise PydanticCustomError(
            "field", "is not a field: expected a field's name, or {header: NAME}"
        ) from None


SignedField = Annotated[
    str | HeaderField, PlainValidator(_parse_field, json_schema_input_type=str | HeaderField)
]


class HashRule(Model):
    """Which operations carry a `request_hash`, and over which fields, in this order."""

    match: OperationsField = Field(description="METHOD[,METHOD] /PATTERN")
    fields: Items[SignedField] = Field(
        min_length=1, description="a list of the fields' names, in the order that is signed"
    )
    optional: bool = Field(
        default=False, description="true: a call that lacks a field goes without the header"
    )


class EkoSettings(CredentialSettings):
    """`kind: eko`: Eko's keys, which sign every request."""

    rests_on: ClassVar[tuple[str, ...]] = ("origins", "environment")

    kind: Literal["eko"] = Field(description="eko")
    environment: eko.Environment = Field(description="staging or production")
    developer_key: SecretField = Field(description=f"the static key, {SECRET}")
    access_key: SecretField = Field(description=f"the key that signs, {SECRET}")
    user_code: Word | None = Field(
        default=None, description="Stands in where a request_hash needs it and the request lacks it"
    )
    request_hash: Items[HashRule] | None = Field(
        default=None, description="What is signed besides the timestamp; null: Eko's own products"
    )
    timestamps: Literal["unique", "clock"] = Field(
        default="unique",
        description="unique: no two requests share a millisecond; clock: the time as it is",
    )
    financial: Items[OperationsField] | None = Field(
        default=None, description="The calls that move money; null: those that Eko documents"
    )

    def is_vendor(self, origin: Origin) -> bool:
        return eko.is_origin(origin, self.environment)

    @property
    def issuer(self) -> str:
        return eko.name(self.environment)

    @property
    def vendor_origins(self) -> str:
        return f"https://{eko.HOSTS[self.environment]} (any port)"


def _rule(match: str, *fields: str | HeaderField, optional: bool = False) -> HashRule:
    return HashRule(match=Operations.parse(match), fields=fields, optional=optional)


AADHAAR_HEADER = HeaderField(header="X-Eko-Aadhaar")
# Eko's products that carry a request_hash, with the fields in the order of Eko's documents. The
# body of v3's BBPS call has no user_code: a configured one stands in, else the header is left out.
DEFAULT_RULES = (
    _rule("POST /**/v1/billpayments/paybill", "utility_acc_no", "amount", "user_code"),
    _rule("POST /**/v2/billpayments/paybill", "utility_acc_no", "amount", "user_code"),
    _rule(
        "POST /**/v3/customer/payment/bbps",
        *("utility_acc_no", "amount", "user_code"),
        optional=True,
    ),
    # The body's `aadhar` is encrypted, so the number comes in a field meant for the proxy alone.
    _rule("POST /**/v2/aeps", AADHAAR_HEADER, "amount", "user_code"),
)


class Signature(NamedTuple):
    """One request's header lines. `repr` shows none of them."""

    lines: bytes
    keys: tuple[Needle, ...]
    signatures: tuple[bytes, ...]

    @property
    def needles(self) -> tuple[Needle, ...]:
        """See `Authorization.needles`; made only where an answer is searched."""
        return self.keys + needles(*self.signatures)

    def __repr__(self) -> str:
        return "Signature()"


class EkoSignatures(Credential):
    """Signs every request with the access key and a timestamp of its own.

    The HMAC key is the base64 *text* of the access key, never decoded back; one sample in Eko's
    documentation leaves that step out, and Eko's own published vector proves it wrong.
    """

    kind = "eko"
    refusals = frozenset({401})
    content_type = b"application/json"

    def __init__(self, settings: EkoSettings, stamps: Callable[[str], Stamps]) -> None:
        self._settings = settings
        self._stamps_of = stamps
        self._rules = DEFAULT_RULES if settings.request_hash is None else settings.request_hash
        self._financial = eko.FINANCIAL if settings.financial is None else settings.financial
        self._defaults = {"user_code": settings.user_code} if settings.user_code else {}
        headers = {f.header for r in self._rules for f in r.fields if isinstance(f, HeaderField)}
        headers.add(AADHAAR_HEADER.header)  # a number that must not travel, whatever the rules
        self.owned = eko.SIGNATURE_FIELDS
        self.consumed = frozenset(map(fold, headers))
        self.catalogue = eko.CATALOGUE
        self.rekey()

    def permits(self, origin: Origin, name: str | None) -> bool:
        return self._settings.permits(origin, name)

    def rekey(self) -> None:
        access_key = self._settings.access_key.reveal()
        self._developer_key = self._settings.developer_key.reveal().encode()
        self._keys = needles(self._developer_key)
        self._hmac = hmac.new(base64.b64encode(access_key.encode()), digestmod="sha256")
        self._stamps = self._stamps_of(access_key)

    def needs_body(self, method: str, path: str) -> bool:
        return self._rule(method, path) is not None

    def is_financial(self, method: str, path: str) -> bool:
        segments = loosely(path)
        return any(operations.covers(method, segments) for operations in self._financial)

    async def authorise(self, outgoing: Outgoing) -> Authorization:
        rule = self._rule(outgoing.method, outgoing.path)
        return await self._signature(None if rule is None else self._signed(rule, outgoing))

    async def preview(self, fields: Mapping[str, str]) -> Authorization:
        if not fields:
            return await self._signature(None)
        texts = {fold(name): value for name, value in (self._defaults | dict(fields)).items()}
        for rule in self._rules:
            wanted = [fold(f.header if isinstance(f, HeaderField) else f) for f in rule.fields]
            if set(map(fold, fields)) <= set(wanted) <= texts.keys():
                return await self._signature("".join(texts[name] for name in wanted).encode())
        raise ProxyError(
            "signing_input_missing",
            "No request_hash rule covers exactly these fields; the rules are: "
            + "; ".join(f"{rule.match.text} ({_names(rule)})" for rule in self._rules),
        )

    async def _signature(self, signed: bytes | None) -> Signature:
        stamp = b"%d" % await self._stamps.next()
        key = self._sign(stamp)
        lines = b"developer_key: %b\r\nsecret-key: %b\r\nsecret-key-timestamp: %b\r\n" % (
            self._developer_key,
            key,
            stamp,
        )
        if signed is None:
            return Signature(lines, self._keys, (key,))
        request_hash = self._sign(stamp + signed)
        lines += b"request_hash: %b\r\n" % request_hash
        return Signature(lines, self._keys, (key, request_hash))

    async def again(
        self, outgoing: Outgoing, refused: Authorization, answer: bytes
    ) -> Authorization | None:
        del refused
        # 401 with one of these numbers was refused at Eko's door: it was not processed.
        return await self.authorise(outgoing) if eko.is_refusal(answer) else None

    def _sign(self, message: bytes) -> bytes:
        mac = self._hmac.copy()
        mac.update(message)
        return base64.b64encode(mac.digest())

    def _rule(self, method: str, path: str) -> HashRule | None:
        segments = loosely(path)
        for rule in self._rules:
            if rule.match.covers(method, segments):
                return rule
        return None

    def _signed(self, rule: HashRule, outgoing: Outgoing) -> bytes | None:
        """Join the fields' literal text; None where an optional rule lacks one."""
        wanted = [f for f in rule.fields if isinstance(f, str)]
        try:
            found = self._defaults | literal_fields(outgoing, wanted)
        except ProxyError as error:
            if rule.optional and error.code == "signing_input_missing":
                return None
            raise
        parts = []
        for field in rule.fields:
            text = _field_text(field, found, outgoing)
            if not text and rule.optional:
                return None
            if not text:
                raise _missing(field, rule)
            parts.append(text)
        try:
            return "".join(parts).encode()
        except UnicodeEncodeError:
            raise bad_request("A signed field's text is not Unicode.") from None


def _names(rule: HashRule) -> str:
    return ", ".join(f.header if isinstance(f, HeaderField) else f for f in rule.fields)


def _field_text(field: str | HeaderField, found: Mapping[str, str], outgoing: Outgoing) -> str:
    if isinstance(field, HeaderField):
        return outgoing.read.get(fold(field.header), b"").decode("latin-1")
    return found.get(field, "")


def _missing(field: str | HeaderField, rule: HashRule) -> ProxyError:
    where = (
        f"the header field {field.header}"
        if isinstance(field, HeaderField)
        else f"the field {field!r} of the body or the query"
    )
    return ProxyError(
        "signing_input_missing",
        f"'{rule.match.text}' carries a request_hash over {where}, which this request lacks. "
        "Nothing was sent.",
    )
