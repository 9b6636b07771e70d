"""What a caller's fields may not do: pass for a credential, take one away, change what was judged.

Through raw sockets and to stand-ins that verify, with a second request in the buffer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import PAYBILL, PAYMENT, ScriptedUpstream, answer, plain_proxy, raw_client
from tests.test_forward_credentials import fields_of

if TYPE_CHECKING:
    from tests.support import Running

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
EKA = {"authorization", "auth", "client-id"}
EKO = {"developer-key", "secret-key", "secret-key-timestamp", "request-hash"}


def folded(fields: list[tuple[str, str]]) -> list[str]:
    """Read names as lenient frameworks do."""
    return [re.sub("[^a-z0-9]", "-", name.lower()) for name, _ in fields]


def spelled(name: str) -> list[str]:
    """Spell a name as frameworks would still know it."""
    joined = [name.replace("-", joint) for joint in "-_."]
    return [how(each) for each in joined for how in (str.lower, str.upper, str.title)]


@pytest.mark.parametrize("name", sorted(EKA | {"jwt-payload", "x-eka-workspace"}))
async def test_no_alias_of_what_eka_reads_arrives(front: Running, name: str) -> None:
    theirs = [(each, "canary") for each in spelled(name) * 2 if name != "x-eka-workspace"]
    theirs = theirs or [("X_Eka_Workspace", "clinic-a")]
    lines = "".join(f"{each}: {value}\r\n" for each, value in theirs)
    async with raw_client(front.eka) as client:
        await client.send(f"GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        assert (await client.answer()).status == 200
    arrived = fields_of(front.stand_ins.eka)
    assert "canary" not in str(arrived)
    names = folded(arrived)
    assert {each: names.count(each) for each in EKA} == dict.fromkeys(EKA, 1)
    assert not {"jwt-payload", "x-eka-workspace"} & set(names)


@pytest.mark.parametrize("name", sorted(EKO))
async def test_no_alias_of_what_eko_reads_arrives(front: Running, name: str) -> None:
    """The stand-in recomputes the signatures: a copy that arrived would not be the right one."""
    lines = "".join(f"{each}: canary\r\n" for each in spelled(name) * 2)
    head = f"POST {PAYBILL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(PAYMENT)}\r\n{lines}\r\n"
    async with raw_client(front.eko) as client:
        await client.send(head.encode() + PAYMENT)
        assert (await client.answer()).status == 200
    arrived = fields_of(front.stand_ins.eko)
    assert "canary" not in str(arrived)
    names = folded(arrived)
    assert {each: names.count(each) for each in EKO} == dict.fromkeys(EKO, 1)


async def test_no_alias_of_the_gateways_identity_arrives_without_a_credential() -> None:
    async with ScriptedUpstream([answer()]) as upstream, plain_proxy(upstream.url) as proxy:
        async with raw_client(proxy.plain) as client:
            fields = [(each, "canary") for each in spelled("jwt-payload")]
            assert (await client.ask("GET", "/", fields)).status == 200
        assert "canary" not in str(upstream.requests)


ABUSE = (
    "close, Authorization, auth, client-id, developer_key, secret-key, secret-key-timestamp, "
    "request_hash, x-request-id, content-length, host, transfer-encoding, content-type, connection"
)


async def test_connection_takes_nothing_away_from_eka(front: Running) -> None:
    async with raw_client(front.eka) as client:
        got = await client.ask("GET", "/x", [("Connection", ABUSE), ("X-Request-Id", "mine")])
        assert got.status == 200
        assert await client.rest() == b""
    arrived = dict(fields_of(front.stand_ins.eka))
    assert arrived["X-Request-Id"] == "mine"
    assert {name.lower() for name in arrived} >= EKA | {"host"}


async def test_connection_takes_nothing_away_from_eko(front: Running) -> None:
    """The stand-in refuses what is not signed; a body without length would be a second request."""
    fields = [("Connection", ABUSE), ("Content-Type", "application/json")]
    async with raw_client(front.eko) as client:
        assert (await client.ask("POST", PAYBILL, fields, PAYMENT)).status == 200
    assert len(front.stand_ins.eko.payments) == 1
    assert front.stand_ins.eko.arrived == 1


@pytest.mark.parametrize("framing", ["Content-Length: %d", "Transfer-Encoding: chunked"])
async def test_connection_makes_no_request_of_a_body(framing: str) -> None:
    line = (framing % len(HIDDEN) if "%" in framing else framing).encode()
    body = HIDDEN if "%" in framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    async with (
        ScriptedUpstream([answer(b"one"), answer(b"leaked")]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: %b\r\n%b\r\n\r\n"
        await client.send(head % (ABUSE.encode(), line) + body)
        assert (await client.answer()).body == b"one"
        assert await client.rest() == b""
        (got,) = upstream.requests
        assert got.body == HIDDEN
        assert len(got.all("Content-Length") + got.all("Transfer-Encoding")) == 1
        assert got.all("Host") == [f"127.0.0.1:{upstream.port}"]


# Another method or path than was judged.

OVERRIDES = {
    "X-HTTP-Method-Override": "DELETE",
    "X-HTTP-Method": "DELETE",
    "X-Method-Override": "DELETE",
    "X-Original-URL": "/secret",
    "X-Rewrite-URL": "/secret",
}
ALIASES = ["x_http_method_override", "X.Original.Url", "X_REWRITE_URL"]


@pytest.mark.parametrize("name", [*OVERRIDES, *ALIASES])
@pytest.mark.parametrize("how", ["alone", "twice", "named by Connection"])
async def test_no_field_makes_another_request_of_one_that_allow_has_judged(
    name: str, how: str
) -> None:
    change = {"routes": {"plain": {"allow": ["GET /x"]}}}
    fields = [(name, OVERRIDES.get(name, "/secret"))] * (2 if how == "twice" else 1)
    if how == "named by Connection":
        fields.append(("Connection", name))
    async with (
        ScriptedUpstream([answer(b"leaked")] * 3) as upstream,
        plain_proxy(upstream.url, change) as proxy,
        raw_client(proxy.plain) as client,
    ):
        lines = "".join(f"{each}: {value}\r\n" for each, value in fields)
        await client.send(f"GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + HIDDEN)
        got = await client.answer()
        assert (got.status, got.get("X-Ekeko-Error")) == (400, "bad_request")
        assert name.lower().replace("_", "-").replace(".", "-") in got.json()["detail"]
        assert b"secret" not in got.body
        assert await client.rest() == b""
        assert upstream.requests == []


@pytest.mark.parametrize("name", OVERRIDES)
async def test_no_field_makes_another_request_of_one_that_a_credential_is_attached_to(
    front: Running, name: str
) -> None:
    """A GET may be sent twice: one that is a payment in truth must not go out at all."""
    for url, stand_in in ((front.eka, front.stand_ins.eka), (front.eko, front.stand_ins.eko)):
        async with raw_client(url) as client:
            got = await client.ask("GET", "/x", [(name, OVERRIDES[name])])
            assert (got.status, got.get("X-Ekeko-Error")) == (400, "bad_request")
        assert not [each for each in stand_in.journal if each.target == "/x"]


async def test_where_nothing_is_judged_such_a_field_passes_as_it_is() -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/x", OVERRIDES.items())).status == 200
        assert set(OVERRIDES.items()) <= set(upstream.requests[0].fields)


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Prefix", "X-Forwarded-Uri", "x_forwarded_method", "X.Forwarded.Host"]
)
async def test_no_forwarding_field_that_an_upstream_might_go_by_arrives(name: str) -> None:
    async with (
        ScriptedUpstream([answer()]) as upstream,
        plain_proxy(upstream.url) as proxy,
        raw_client(proxy.plain) as client,
    ):
        assert (await client.ask("GET", "/x", [(name, "canary")])).status == 200
        assert "canary" not in str(upstream.requests)
