"""The configuration as the program uses it: frozen, typed, every default in one place."""

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr

from proxy.addresses import (
    HostField,
    Listen,
    ListenerAddress,
    ListenField,
    OriginField,
    ViaField,
    WebOriginField,
    parse_listen,
)
from proxy.config.problem import Places
from proxy.credentials import AnySettings
from proxy.model import ListenerTls, Model, Tls
from proxy.values import (
    CallerName,
    CredentialName,
    Items,
    KeyField,
    Name,
    OperationsField,
    PrefixField,
    Seconds,
    SecondsOrZero,
    SizeField,
    SocketMode,
)


class Timeout(Model):
    """How long to wait for an upstream, in seconds."""

    connect: Seconds = Field(default=5, description="Name lookup, TCP and TLS together")
    response: Seconds = Field(default=60, description="From the request's end to the answer's head")
    idle: Seconds = Field(default=60, description="Between two pieces of a body")
    total: Seconds | None = Field(default=None, description="The whole exchange; null: no limit")


ServedField = Annotated[Items[CallerName], Field(min_length=1)] | None
_LARGEST_UID = 2**32 - 2  # the one above stands for no user


class Route(Model):
    """One way through the proxy: where callers arrive, where requests go, with what."""

    listen: ListenField = Field(description="HOST:PORT, [::1]:PORT or unix:/PATH")
    prefix: PrefixField = Field(
        default="/", description="Which paths it serves; the longest prefix of a listener wins"
    )
    strip_prefix: bool = Field(
        default=False, description="Whether `prefix` is removed before forwarding"
    )
    upstream: OriginField = Field(description="https://HOST[:PORT][/BASE/PATH]")
    credential: str = Field(description="a name under `credentials`, or `none`")
    allow: Items[OperationsField] | None = Field(
        default=None, description="The only calls that pass, after strip_prefix; null: all"
    )
    callers: ServedField = Field(
        default=None, description="The only callers that it serves; null: all that are known"
    )
    timeout: Timeout = Field(default=Timeout(), description="How long to wait, in seconds")
    max_body: SizeField | None = Field(
        default=None, description="The largest request body, such as 64MiB; null: no limit"
    )
    max_in_flight: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Requests served at one time, WebSockets too; null: no limit"
    )
    tls: Tls = Field(default=Tls(), description="TLS towards the upstream")
    via: ViaField | None = Field(
        default=None, description="An outbound HTTP proxy: http://USER:PASS@HOST:PORT"
    )
    scrub: bool = Field(
        default=True, description="Whether credentials that an answer echoes are masked with '*'"
    )
    socket_mode: SocketMode = Field(
        default="0600", description="Permissions of the unix socket, in quotes"
    )


class Admin(Model):
    """The listener for health, metrics and the status page."""

    listen: ListenField | None = Field(
        default=parse_listen("127.0.0.1:8190"), description="Its address; null turns it off"
    )
    callers: ServedField = Field(
        default=None, description="The only callers that it serves; null: all that are known"
    )


class Access(Model):
    """Who may call, besides local programs that use a loopback name."""

    hosts: Items[HostField] = Field(
        default=(), description="More names that callers may use in Host"
    )
    origins: Items[WebOriginField] = Field(
        default=(), description="Web origins that may call from a browser"
    )
    keys: dict[Name, KeyField] = Field(
        default={}, description="Keys of callers, by the callers' names: sent in X-Ekeko-Key"
    )
    uids: Items[Annotated[int, Field(ge=0, le=_LARGEST_UID)]] = Field(
        default=(), description="The users whose processes may call on unix sockets, by number"
    )
    unauthenticated: bool = Field(
        default=False, description="Whether listeners may be open to callers that nobody knows"
    )


class Log(Model):
    """What is written to stdout."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe message that is written"
    )
    access: bool = Field(default=True, description="Whether each request is logged")


class Limits(Model):
    """Bounds on what callers may hold; times in seconds, sizes in bytes."""

    connections: Annotated[int, Field(gt=0)] = Field(
        default=10000, description="Connections of callers, all listeners and workers together"
    )
    connections_per_caller: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Of them, those of one address, or of one user at unix sockets; null: no limit",
    )
    header_bytes: Annotated[SizeField, Field(ge=1024, le=1 << 20)] = Field(
        default=64 * 1024,
        description="A request's head; and again its trailers",
    )
    header_fields: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100, description="A request's fields, those behind its body too"
    )
    request_line: Annotated[SizeField, Field(ge=256, le=1 << 20)] = Field(
        default=16 * 1024, description="Of the head, the request line's target"
    )
    header_timeout: Seconds = Field(default=10, description="For a request's whole head to arrive")
    drain: SecondsOrZero = Field(
        default=30, description="For requests in flight to finish when the proxy stops"
    )


class Listener(Model):
    """How a listener accepts."""

    tls: ListenerTls | None = Field(default=None, description="TLS towards callers; null: none")


class Settings(Model):
    """A whole configuration."""

    routes: dict[Name, Route] = Field(min_length=1, description="a mapping of names to routes")
    credentials: dict[CredentialName, AnySettings] = Field(
        default={}, description="The vendor credentials that routes attach, by name"
    )
    admin: Admin = Field(default=Admin(), description="Health, metrics and the status page")
    listeners: dict[ListenerAddress, Listener] = Field(
        default={}, description="How listeners accept, by the address that a `listen` gives them"
    )
    access: Access = Field(default=Access(), description="Who may call")
    log: Log = Field(default=Log(), description="What is written to stdout")
    limits: Limits = Field(default=Limits(), description="Bounds on what callers may hold")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="How many processes serve; 1 is enough for most"
    )

    # Where each key stands in its file, for what is noticed after loading.
    _places: Places = PrivateAttr(default_factory=Places)

    def share(self, total: int) -> int:
        """Return each worker's share of what all of them may hold."""
        return -(-total // self.workers)

    def listener(self, listen: Listen) -> Listener:
        """Tell how the listener at an address accepts."""
        found = (each for at, each in self.listeners.items() if parse_listen(at) == listen)
        return next(found, Listener())

    @property
    def places(self) -> Places:
        """Where each key stands in the file that this was read from."""
        return self._places

    def placed(self, places: Places) -> Self:
        """Take note of where each key stands."""
        self._places = places
        return self
