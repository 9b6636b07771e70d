"""What pages can and cannot do, by a real browser: Debian's chromium, or another Chromium."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from blockbuster import blockbuster_ctx

from proxy.guard import Guard
from tests.browser.attacks import ATTACKS, POSTS, READS
from tests.browser.siege import (
    FOREIGN,
    INTERNAL,
    LOOPBACK,
    SECRET,
    Call,
    Outcome,
    besiege,
    find_browser,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Siege = Callable[..., Outcome]

pytestmark = pytest.mark.timeout(180)

ALWAYS: Final = "/favicon.ico"  # a window asks for it by itself, whatever it was answered
INSIDE: Final = (SECRET, "ekeko_requests", '"routes"')  # of answers, and of two admin pages


def route_calls(host: str = LOOPBACK) -> list[Call]:
    return [Call(attack, f"/attack/{attack}", host=host) for attack in ATTACKS]


def admin_calls(host: str = LOOPBACK) -> list[Call]:
    return [
        *(Call(attack, f"/quit?{attack}", "admin", host) for attack in POSTS),
        *(Call(attack, f"/metrics?{attack}", "admin", host) for attack in READS),
        *(Call(attack, f"/status.json?{attack}", "admin", host) for attack in READS),
    ]


# A page of another port of this machine; of another site; of a name that has come to mean this
# machine, and is a listener's own origin so.
PAGES: Final[dict[str, dict[str, Any]]] = {
    "neighbour": {"calls": [*route_calls(), *admin_calls()], "page": LOOPBACK},
    "foreign": {"calls": [*route_calls(), *admin_calls()], "page": FOREIGN},
    "rebound": {"calls": route_calls(FOREIGN), "page": FOREIGN, "rebound": "plain"},
    "rebound-admin": {"calls": admin_calls(FOREIGN), "page": FOREIGN, "rebound": "admin"},
}


def pages(fixture: str, *names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(fixture, names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Siege:
    """Besiege a proxy; see `besiege`."""
    program = find_browser()

    def run(**how: Any) -> Outcome:
        profile = tmp_path_factory.mktemp("profile")
        with blockbuster_ctx("proxy"):
            return asyncio.run(besiege(program, profile, **how))

    return run


@pytest.fixture(scope="module")
def repelled(request: pytest.FixtureRequest, siege: Siege) -> Outcome:
    """A page that is not listed tries everything."""
    return siege(**PAGES[request.param])


@pytest.fixture(scope="module")
def let_in(request: pytest.FixtureRequest, siege: Siege) -> Outcome:
    """The same, and there is no guard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "check", lambda *_: None)
        return siege(**PAGES[request.param])


@pages("repelled", "neighbour", "foreign", "rebound")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_s_call_does_not_arrive_upstream(repelled: Outcome, attack: str) -> None:
    assert f"/attack/{attack}" in repelled.tried
    assert f"/attack/{attack}" not in repelled.arrived


@pages("let_in", "neighbour", "rebound")
@pytest.mark.parametrize("attack", ATTACKS)
def test_without_the_guard_it_would(let_in: Outcome, attack: str) -> None:
    assert f"/attack/{attack}" in let_in.arrived


@pages("repelled", "neighbour", "foreign", "rebound", "rebound-admin")
def test_a_page_ends_nothing_and_reads_nothing(repelled: Outcome) -> None:
    assert not repelled.stopped
    assert not [text for text in repelled.read.values() for word in INSIDE if word in text]
    assert set(repelled.arrived) <= {ALWAYS}


@pages("let_in", "neighbour", "rebound-admin")
def test_without_the_guard_it_would_end_the_proxy(let_in: Outcome) -> None:
    assert let_in.stopped


@pages("let_in", "rebound", "rebound-admin")
def test_without_the_guard_it_would_read(let_in: Outcome) -> None:
    read = "".join(let_in.read.values())
    assert SECRET in read or all(word in read for word in INSIDE[1:])


def test_a_page_of_a_listed_origin_calls_and_reads_but_not_the_admin_pages(siege: Siege) -> None:
    calls = [Call("fetch", "/attack/fetch"), Call("fetch-post-json", "/attack/post")]
    got = siege(calls=[*calls, *admin_calls()], trusted=True)
    assert got.arrived["/attack/fetch"] == {"GET"}
    assert got.arrived["/attack/post"] == {"POST"}  # its preflight ended at the proxy
    assert json.dumps({"a": "b"}).encode() in got.bodies
    assert got.read.pop("/attack/fetch") == SECRET
    assert got.read.pop("/attack/post") == SECRET
    assert not got.stopped
    assert not [text for text in got.read.values() for word in INSIDE if word in text]


def test_under_a_listed_host_a_page_causes_reads_alone_and_learns_nothing(siege: Siege) -> None:
    """Towards such a name, on plain http, browsers do not say whose page a GET is for."""
    got = siege(calls=route_calls(INTERNAL), page=FOREIGN, hosts=[INTERNAL])
    assert set().union(*got.arrived.values()) <= {"GET", "HEAD"}
    assert SECRET not in "".join(got.read.values())


def test_no_other_spelling_of_loopback_lets_a_page_in(siege: Siege) -> None:
    hosts = ["localhost", "localhost.", "[::ffff:127.0.0.1]", "0.0.0.0", "x.localhost"]
    attacks = ["fetch-no-cors", "form-post", "iframe-no-referrer", "image", "window"]
    calls = [
        Call(attack, f"/{number}/{attack}", host=host)
        for number, host in enumerate(hosts)
        for attack in attacks
    ]
    got = siege(calls=calls, page=FOREIGN)
    assert set(got.arrived) <= {ALWAYS}
