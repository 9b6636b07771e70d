"""What every kind of credential is: its settings, and what it does to an outgoing request."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from pydantic import Field

from proxy.addresses import Origin, OriginField
from proxy.model import Model
from proxy.values import Items
from proxy.vendors.owners import owner

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping

    from proxy.clock import Clock
    from proxy.credentials.stamps import StampStore
    from proxy.observe import Observer
    from proxy.scrub import Needle
    from proxy.tokens import TokenSlot, TokenStore
    from proxy.vendors.catalogue import Catalogue


class CredentialSettings(Model):
    """What every credential's configuration shares: the origins it may be sent to."""

    # What `permits` and `vendor_origins` read: they can be asked where other fields are wrong.
    rests_on: ClassVar[tuple[str, ...]] = ("origins",)

    origins: Items[OriginField] = Field(
        default=(), description="More origins that this credential may be sent to, such as a mirror"
    )

    def permits(self, origin: Origin, name: str | None = None) -> bool:
        """Tell whether this credential may be sent there: the vendor's own, or listed.

        `name` is what TLS verifies there in place of the host. Whose certificate is taken for the
        vendor's has to be the vendor's too.
        """
        here = (origin.scheme, origin.host, origin.port)
        if any((each.scheme, each.host, each.port) == here for each in self.origins):
            return not self.is_foreign(origin.host) and not self.is_foreign(name or "")
        return self.is_vendor(origin) and (
            name is None or self.is_vendor(origin._replace(host=name))
        )

    def is_foreign(self, host: str) -> bool:
        """Tell whether a host is another vendor's or environment's: then no list allows it."""
        return owner(host) not in (None, self.issuer)

    @property
    @abstractmethod
    def issuer(self) -> str:
        """Name whose credential this is, as `owners.owner` does."""

    @abstractmethod
    def is_vendor(self, origin: Origin) -> bool:
        """Tell whether this is one of the vendor's own origins, for this environment."""

    @property
    @abstractmethod
    def vendor_origins(self) -> str:
        """Name the vendor's origins, for messages."""


class Tools(NamedTuple):
    """What credentials work with. It outlives a reload, so tokens and stamps do too."""

    clock: Clock
    tokens: TokenStore
    stamps: StampStore
    observer: Observer


class Outgoing:
    """What a credential may know of a request.

    `path` is the whole path that the upstream will see, percent-decoded; `read` holds the fields
    that the credential consumes, by folded name; `body` is None unless it asked for it. `repr`
    shows nothing of them: they hold account numbers.
    """

    __slots__ = ("body", "method", "path", "query", "read")

    def __init__(
        self, method: str, path: str, query: str, read: Mapping[str, bytes], body: bytes | None
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.read = read
        self.body = body

    def __repr__(self) -> str:
        return f"Outgoing({self.method})"


class Authorization(Protocol):
    """What is attached to one request: a block of header lines, each ended by CRLF."""

    @property
    def lines(self) -> bytes:
        """The header lines."""
        ...

    @property
    def needles(self) -> tuple[Needle, ...]:
        """What of them is secret: an answer that echoes it is masked."""
        ...


class Credential:
    """What happens to a request's credentials. This base attaches nothing.

    `owned` are the header fields that a caller's copy of never passes; `consumed` are read and
    removed; an answer whose status is in `refusals` may mean "ask again".
    """

    kind: ClassVar[str]
    owned: frozenset[str] = frozenset()
    consumed: frozenset[str] = frozenset()
    refusals: ClassVar[frozenset[int]] = frozenset()
    # Added to a request that has a body and no Content-Type.
    content_type: ClassVar[bytes | None] = None
    catalogue: Catalogue | None = None

    def permits(self, origin: Origin, name: str | None) -> bool:  # noqa: ARG002
        """Tell whether what is attached may go there; `name` is what TLS verifies, or None."""
        return not self.owned

    def needs_body(self, method: str, path: str) -> bool:  # noqa: ARG002
        """Tell whether `authorise` needs the whole body of such a request."""
        return False

    def is_financial(self, method: str, path: str) -> bool:  # noqa: ARG002
        """Tell whether such a request moves money: then it is never sent twice on a doubt."""
        return False

    def local_answer(self, method: str, path: str) -> bytes | None:  # noqa: ARG002
        """Return the JSON with which the proxy itself answers such a request, if it does."""
        return None

    async def authorise(self, outgoing: Outgoing) -> Authorization:  # noqa: ARG002
        """Return what to attach; ProxyError if there is nothing valid to attach."""
        return NOTHING

    async def again(
        self,
        outgoing: Outgoing,  # noqa: ARG002
        refused: Authorization,  # noqa: ARG002
        answer: bytes,  # noqa: ARG002
    ) -> Authorization | None:
        """Return what to attach to a second try, None if the refusal is final.

        `answer` is the body (its first 64 KiB) of an answer whose status is in `refusals`.
        """
        return None

    async def preview(self, fields: Mapping[str, str]) -> Authorization:
        """Return what a plain GET, or a call with these signed fields, would carry."""
        del fields
        return await self.authorise(Outgoing("GET", "/", "", {}, None))

    def enter(self) -> None:
        """Begin to serve: the configuration that this was made of is in force."""

    def rekey(self) -> None:
        """Take the secrets' present values: a file of one has changed."""

    def trouble(self) -> str | None:
        """Say why requests cannot be authorised just now, None if there is no reason to doubt."""
        return None

    def token_expires_in(self) -> float | None:
        """Seconds that the current token is valid, None for kinds that have none to expire."""
        return None

    def token_slot(self, key: Hashable) -> TokenSlot | None:  # noqa: ARG002
        """Return the place of the token that a key names, None if it is not this credential's."""
        return None

    def retire(self, successors: Collection[Credential]) -> None:
        """Leave the place to the credentials of a newer configuration."""

    async def close(self) -> None:
        """Let go of connections."""


class _Nothing(NamedTuple):
    lines: bytes = b""
    needles: tuple[Needle, ...] = ()


NOTHING: Authorization = _Nothing()
