"""A credential goes nowhere but where it may, whatever the configuration and the code before say.

`config.load` refuses what would lead it elsewhere. Here it is passed by, as a bug would.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import ConfigDict, TypeAdapter

from proxy import credentials
from proxy.addresses import Origin, parse_origin
from proxy.credentials import AnySettings, Passthrough
from proxy.errors import ProxyError
from proxy.model import Tls
from proxy.route import Route, Timeouts
from proxy.secrets import Secret
from proxy.upstream.dial import Dialer
from proxy.upstream.pool import Pool
from tests.support import ScriptedUpstream, answer, ask, plain_proxy

if TYPE_CHECKING:
    from proxy.credentials import Tools
    from proxy.credentials.base import Credential, CredentialSettings

EKA: dict[str, Any] = {"kind": "eka", "client_id": "i", "client_secret": "s"}
EKA_DEV = EKA | {"login_url": "https://api.dev.eka.care"}
BEARER: dict[str, Any] = {"kind": "bearer", "token": "canary-token"}
STAGING: dict[str, Any] = {
    "kind": "eko",
    "environment": "staging",
    "developer_key": "canary-key",
    "access_key": "k",
}
PRODUCTION = STAGING | {"environment": "production"}
ANY: TypeAdapter[Any] = TypeAdapter(AnySettings, config=ConfigDict(hide_input_in_errors=True))


def settings(raw: dict[str, Any], *listed: str) -> CredentialSettings:
    made: CredentialSettings = ANY.validate_python(raw | {"origins": list(listed)})
    return made


def spellings(host: str) -> list[Origin]:
    """Every way to write a host that gets through to a configuration."""
    urls = [
        f"https://{host}",
        f"https://{host.upper()}",
        f"https://{host}:25002",
        f"https://{host}.",
    ]
    return [parse_origin(url) for url in urls]


# First line: what a credential's settings permit.


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (STAGING, "api.eko.in"),
        (PRODUCTION, "staging.eko.in"),
        (STAGING, "api.eka.care"),
        (EKA, "api.eko.in"),
        (EKA, "staging.eko.in"),
        (BEARER, "api.eko.in"),
        (EKA, "bucket.s3.amazonaws.com"),
        (EKA, "s3.ap-south-1.amazonaws.com"),
        (BEARER, "bucket.s3-ap-south-1.amazonaws.com"),
        (BEARER, "storage.googleapis.com"),
        (STAGING, "account.blob.core.windows.net"),
    ],
)
def test_no_list_lends_a_credential_to_another_vendor_or_environment(
    raw: dict[str, Any], host: str
) -> None:
    for origin in spellings(host):
        assert not settings(raw).permits(origin)
        assert not settings(raw, str(origin)).permits(origin)


@pytest.mark.parametrize(
    ("raw", "url", "permitted"),
    [
        (EKA, "https://api.eka.care", True),
        (EKA, "https://api.dev.eka.care", False),
        (EKA, "https://api-dev.eka.care", False),
        (EKA_DEV, "https://api.eka.care", False),
        (EKA_DEV, "https://api.dev.eka.care", True),
        (EKA_DEV, "https://api.staging.eka.care", True),
        (BEARER, "https://api.dev.eka.care", True),  # a token does not tell where it is from
        (EKA, "https://api.eka.care.", False),
        (EKA, "https://devices.eka.care", True),
    ],
)
def test_a_token_goes_to_the_environment_of_its_login(
    raw: dict[str, Any], url: str, *, permitted: bool
) -> None:
    assert settings(raw).permits(parse_origin(url)) is permitted


def test_a_mirror_may_be_listed_for_the_login_and_for_calls() -> None:
    there = "https://eka.mirror.example"
    mirrored = settings(EKA | {"login_url": there}, there)
    assert mirrored.permits(parse_origin(there))
    assert mirrored.permits(parse_origin("https://api.dev.eka.care"))


@pytest.mark.parametrize(
    ("raw", "url", "name", "permitted"),
    [
        (STAGING, "https://staging.eko.in", "api.eko.in", False),
        (STAGING, "https://staging.eko.in", "mirror.example", False),
        (STAGING, "https://staging.eko.in", "staging.eko.in", True),
        (EKA, "https://api.eka.care", "voice.eka.care", True),
        (EKA, "https://api.eka.care", "mirror.example", False),
        (EKA, "https://10.0.0.5", "eka.mirror.example", True),
        (STAGING, "https://10.0.0.5", "api.eko.in", False),
    ],
)
def test_whose_certificate_is_taken_for_the_vendors_is_the_vendors(
    raw: dict[str, Any], url: str, name: str, *, permitted: bool
) -> None:
    assert settings(raw, "https://10.0.0.5").permits(parse_origin(url), name) is permitted


# Second line: a credential and connections that lead elsewhere do not make a route.

WRONG = [
    (STAGING, "https://api.eko.in"),
    (PRODUCTION, "https://staging.eko.in"),
    (PRODUCTION, "http://127.0.0.1:1"),
    (EKA, "https://bucket.s3.amazonaws.com"),
    (EKA, "https://api.dev.eka.care"),
    (EKA, "https://evil.example"),
    (BEARER, "https://api.eko.in"),
    (BEARER, "https://127.0.0.1"),
]


def build(raw: dict[str, Any], tools: Tools) -> Credential:
    return credentials.build("it", ANY.validate_python(raw), tools)


def route(credential: Credential, upstream: str, there: str, name: str | None = None) -> Route:
    pool = Pool(
        Dialer(parse_origin(there), Tls(server_name=name)), now=lambda: 0.0, connect_timeout=1
    )
    return Route(
        "it",
        upstream=parse_origin(upstream),
        credential=credential,
        pool=pool,
        timeout=Timeouts(1, 1, None),
    )


@pytest.mark.parametrize(("raw", "upstream"), WRONG)
async def test_a_route_with_another_vendors_credential_does_not_come_about(
    raw: dict[str, Any], upstream: str, tools: Tools
) -> None:
    credential = build(raw, tools)
    with pytest.raises(PermissionError, match=r"routes\.it: its credential may not go to "):
        route(credential, upstream, upstream)
    await credential.close()


@pytest.mark.parametrize(
    ("upstream", "there"),
    [
        ("https://staging.eko.in", "https://api.eko.in"),
        ("https://staging.eko.in", "https://staging.eko.in:25002"),
        ("https://staging.eko.in", "https://evil.example"),
    ],
)
async def test_a_route_whose_connections_lead_elsewhere_does_not_come_about(
    upstream: str, there: str, tools: Tools
) -> None:
    for credential in (build(STAGING, tools), Passthrough(parse_origin(upstream))):
        with pytest.raises(PermissionError):
            route(credential, upstream, there)


async def test_a_route_that_takes_anothers_certificate_does_not_come_about(tools: Tools) -> None:
    url = "https://staging.eko.in"
    with pytest.raises(PermissionError):
        route(build(STAGING, tools), url, url, "api.eko.in")
    assert route(build(STAGING, tools), url, url, "staging.eko.in").name == "it"


async def test_a_credential_that_says_nothing_about_its_places_goes_nowhere() -> None:
    class Careless(credentials.base.Credential):
        kind = "careless"
        owned = frozenset({"authorization"})

    with pytest.raises(PermissionError):
        route(Careless(), "https://api.eka.care", "https://api.eka.care")


@pytest.mark.parametrize(
    "change",
    [
        {"login_url": "https://evil.example"},
        {"login_url": "http://127.0.0.1:1"},
        {"login_url": "https://api.eko.in", "origins": ["https://api.eko.in"]},
        {"tls": {"server_name": "evil.example"}},
        {
            "login_url": "http://127.0.0.1:1",
            "origins": ["http://127.0.0.1:1"],
            "via": "http://proxy.example:3128",
        },
    ],
)
def test_a_login_elsewhere_does_not_come_about(change: dict[str, Any], tools: Tools) -> None:
    with pytest.raises(PermissionError, match=r"credentials\.it: it may not log in at "):
        build(EKA | change, tools)


@pytest.mark.parametrize(("raw", "upstream"), WRONG)
async def test_neither_a_start_nor_a_reload_brings_it_about(
    raw: dict[str, Any], upstream: str
) -> None:
    wrong = {
        "routes": {"plain": {"upstream": upstream, "credential": "it"}},
        "credentials": {"it": raw},
    }
    async with ScriptedUpstream([answer(b"as before")]) as there:
        with pytest.raises(PermissionError):
            async with plain_proxy(there.url, wrong):
                pass
        async with plain_proxy(there.url) as proxy:
            with pytest.raises(PermissionError):
                await proxy.reload(wrong)
            assert (await ask(proxy.plain, "GET", "/")).body == b"as before"
        assert [request.get("authorization") for request in there.requests] == [None]


# Plain http.


@pytest.mark.parametrize(
    ("origin", "via"),
    [
        (Origin("http", "api.eka.care", 80, ""), None),
        (Origin("http", "10.0.0.5", 80, ""), None),
        (Origin("http", "::ffff:127.0.0.1", 80, ""), None),
        (Origin("http", "localhost.evil.example", 80, ""), None),
        (Origin("http", "127.0.0.1", 80, ""), "http://127.0.0.1:3128"),
    ],
)
def test_plain_http_does_not_leave_this_machine(origin: Origin, via: str | None) -> None:
    with pytest.raises(PermissionError, match="would leave this machine"):
        Dialer(origin, Tls(), None if via is None else Secret.literal(via))


async def test_a_name_of_loopbacks_that_leads_elsewhere_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere:
        async def getaddrinfo(self, *_: object, **__: object) -> list[Any]:
            return [(2, 1, 6, "", ("127.0.0.1", 80)), (2, 1, 6, "", ("192.0.2.1", 80))]

    dialer = Dialer(parse_origin("http://localhost"), Tls())
    monkeypatch.setattr(asyncio, "get_running_loop", Elsewhere)
    with pytest.raises(OSError, match="does not leave this machine"):
        await dialer._open(cast("Any", None))


# A Location.


async def followed(location: str, asked: str = "/staging/start", **options: Any) -> str | None:
    """What becomes of a Location that the staging route's upstream sends."""
    async with ScriptedUpstream([]) as staging, ScriptedUpstream([answer()]) as production:
        here, port = staging.url.removeprefix("http://"), "127.0.0.1:0"
        moved = answer(b"", f"Location: {location.replace('UP', here)}", status="302 Found")
        staging._plays = ([moved],)
        async with plain_proxy(staging.url) as free:
            port = free.plain.removeprefix("http://")
        routes = {
            "plain": None,
            "staging": {
                "listen": port,
                "prefix": "/staging",
                "upstream": staging.url,
                "credential": "none",
                **options,
            },
            "production": {
                "listen": port,
                "prefix": "/production",
                "upstream": production.url,
                "credential": "none",
            },
        }
        async with plain_proxy(staging.url, {"routes": routes}) as proxy:
            got = (await ask(proxy.url("staging"), "GET", asked)).get("Location")
        return None if got is None else got.replace(here, "UP")


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        ("http://UP/staging/a?b#c", "http://localhost/staging/a?b#c"),
        ("/staging/a", "/staging/a"),
        ("a", "a"),
        ("?b", "?b"),
        ("http://UP/production/a", "http://UP/production/a"),
        ("//UP/production/a", "http://UP/production/a"),
        ("/production/a?b#c", "http://UP/production/a?b#c"),
        ("/production", "http://UP/production"),
        ("/%70roduction/a", "http://UP/%70roduction/a"),
        ("/Production/a", "http://UP/Production/a"),
        ("/staging/../production/a", "http://UP/production/a"),
        ("/staging/%2e%2e/production/a", "http://UP/staging/%2e%2e/production/a"),
        ("/staging/..%2fproduction/a", "http://UP/staging/..%2fproduction/a"),
        ("/staging\\..\\production/a", "http://UP/staging\\..\\production/a"),
        ("../production/a", "http://UP/production/a"),
        ("../prod\tuction/a", "http://UP/production/a"),
        ("/prod\tuction/a", "http://UP/production/a"),
        ("/other", "http://UP/other"),
        ("https://evil.example/production/a", "https://evil.example/production/a"),
        ("http://[bad/production", "http://[bad/production"),
    ],
)
async def test_no_location_leads_a_caller_to_another_routes_credential(
    location: str, becomes: str
) -> None:
    assert await followed(location) == becomes


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        ("http://UP/a", "http://localhost/staging/a"),
        ("/production/a", "/staging/production/a"),
        ("a", "a"),
        ("../../production/a", "http://UP/production/a"),
    ],
)
async def test_nor_where_prefixes_are_removed(location: str, becomes: str) -> None:
    assert await followed(location, "/staging/x/start", strip_prefix=True) == becomes


async def test_where_there_is_one_route_every_location_of_its_own_leads_back() -> None:
    moved = answer(b"", "Location: /a%2f..;b", status="302 Found")
    async with ScriptedUpstream([moved]) as upstream, plain_proxy(upstream.url) as proxy:
        assert (await ask(proxy.plain, "GET", "/")).get("Location") == "/a%2f..;b"


# What is refused has no way to say so to a caller: it never got that far.


async def test_what_the_second_line_says_holds_no_secret(tools: Tools) -> None:
    with pytest.raises(PermissionError) as refused:
        route(build(BEARER, tools), "https://evil.example", "https://evil.example")
    assert "canary" not in str(refused.value)
    assert not isinstance(refused.value, ProxyError)
