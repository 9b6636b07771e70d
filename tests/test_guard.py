"""Who may speak to the proxy: programs that name a host of ours, pages of listed origins."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import Settings
from proxy.errors import ProxyError
from proxy.generation import Generation
from proxy.guard import Guard
from proxy.identity import Keys

PAGE = b"http://localhost:3000"


@pytest.fixture
def guard() -> Guard:
    return Guard(["Proxy.Internal.", "192.0.2.7", "[2001:db8::1]"], [PAGE.decode()])


def refusal(guard: Guard, **read: bytes) -> str:
    with pytest.raises(ProxyError) as caught:
        guard.check({name.replace("_", "-"): value for name, value in read.items()})
    return caught.value.code


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost", b"localhost:8180", b"LOCALHOST:8180", b"localhost.", b"LocalHost.:1"),
        *(b"[::1]:8180", b"[::1]", b"[0:0:0:0:0:0:0:1]:80", b"127.0.0.1", b"127.0.0.1:8180"),
        *(b"127.1.2.3", b"localhost:", b"127.0.0.1."),
        *(b"proxy.internal", b"PROXY.internal.:8180", b"192.0.2.7:1", b"[2001:DB8::1]:8180"),
    ],
)
def test_names_of_ours_pass_in_any_spelling(guard: Guard, host: bytes) -> None:
    for _ in range(2):  # the second is remembered
        guard.check({"host": host})
    assert host in guard._accepted


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.com", b"evil.com:8180", b"localhost.evil.com", b"evil-localhost", b"xlocalhost"),
        *(b"127.0.0.1.evil.com", b"127.0.0.1.nip.io", b"", b" ", b".", b":8180", b"[]", b"[::1"),
        *(b"user@localhost", b"localhost@evil.com", b"localhost:80@evil.com", b"localhost/evil"),
        *(b"localhost:123456", b"localhost:x", b"localhost:-1", b"localhost, evil.com"),
        *(b"::1", b"[::1%25lo]", b"[::2]", b"[fe80::1]", b"128.0.0.1", b"10.0.0.1", b"0.0.0.0"),
        *(b"127.1", b"2130706433", b"0x7f000001", b"0x7f.0.0.1", b"0177.0.0.1", b"127.0.0.01"),
        *(
            b"localhost\x00",
            b"localhost\n",
            b"\xc2\xb2",
            b"loc\xe4lhost",
            b"localhost#",
            b"localhost?",
        ),
        *(b"[::ffff:127.0.0.1]", b"[::FFFF:7f00:1]:8180", b"[::]", b"[::127.0.0.1]"),
        *(b"192.0.2.70", b"proxy.internal.evil.com", b"sub.proxy.internal", b"a" * 5000),
    ],
)
def test_foreign_and_odd_hosts_are_refused(guard: Guard, host: bytes) -> None:
    assert refusal(guard, host=host) == "host_not_allowed"
    assert not guard._accepted


def test_a_mapped_address_is_not_loopback_whatever_python_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A browser reaches loopback by it, and then leaves `Sec-Fetch-Site` out."""
    monkeypatch.setattr(ipaddress.IPv6Address, "is_loopback", True)  # as Python 3.13 on these
    assert refusal(Guard(), host=b"[::ffff:127.0.0.1]:8180") == "host_not_allowed"


@pytest.mark.parametrize(
    ("listen", "host", "passes"),
    [
        ("0.0.0.0:8180", b"0.0.0.0:8180", False),  # browsers reach loopback by these, too
        ("[::]:8180", b"[::]:8180", False),
        ("192.0.2.7:8180", b"192.0.2.7:8180", True),
        ("proxy.internal:8180", b"proxy.internal:8180", True),
    ],
)
@pytest.mark.parametrize("which", ["guard", "admin_guard"])
def test_a_listener_s_own_address_is_a_name_of_ours_unless_it_is_a_wildcard(
    which: str, listen: str, host: bytes, *, passes: bool
) -> None:
    raw = {"listen": listen, "upstream": "http://127.0.0.1:1", "credential": "none"}
    settings = Settings.model_validate({"routes": {"plain": raw}})
    guard = getattr(Generation(settings, {}, {}, Keys({}), {}), which)(
        settings.routes["plain"].listen
    )
    if passes:
        guard.check({"host": host})
    else:
        assert refusal(guard, host=host) == "host_not_allowed"


def test_a_request_without_host_is_refused(guard: Guard) -> None:
    assert refusal(guard) == "host_not_allowed"


@given(st.binary(max_size=30) | st.text("localhst.127[]:x@/%", max_size=24).map(str.encode))
def test_what_passes_is_a_loopback_name_once_its_port_is_off(host: bytes) -> None:
    try:
        Guard().check({"host": host})
    except ProxyError:
        return
    name = (
        re.sub(r":[0-9]*\Z", "", host.decode().lower())
        if not host.endswith(b"]")
        else host.decode()
    )
    name = name.strip("[]").rstrip(".")
    assert name == "localhost" or ipaddress.ip_address(name).is_loopback


def test_a_refused_host_is_not_quoted_back(guard: Guard) -> None:
    with pytest.raises(ProxyError) as caught:
        guard.check({"host": b"canary-4711.example"})
    assert "canary" not in caught.value.detail


def test_hosts_by_the_thousand_are_not_remembered() -> None:
    guard = Guard()
    for port in range(1000):
        guard.check({"host": b"localhost:%d" % port})
    assert len(guard._accepted) <= 64


@pytest.mark.parametrize(
    "origin",
    [
        *(b"null", b"", b"https://evil.com", b"https://localhost:3000", b"http://localhost:3001"),
        *(b"http://localhost", b"http://localhost:3000.evil.com", b"HTTP://LOCALHOST:3000"),
        *(b"http://localhost:3000, https://evil.com", b"http://127.0.0.1:3000", b"file://"),
    ],
)
@pytest.mark.parametrize("site", [None, b"same-origin", b"none"])
def test_a_page_of_an_origin_that_is_not_listed_is_refused(
    guard: Guard, origin: bytes, site: bytes | None
) -> None:
    read = {"host": b"localhost", "origin": origin}
    if site is not None:
        read["sec-fetch-site"] = site
    with pytest.raises(ProxyError) as caught:
        guard.check(read)
    assert caught.value.code == "origin_not_allowed"
    assert caught.value.status == 403


@pytest.mark.parametrize("site", [None, b"cross-site", b"same-site", b"same-origin"])
def test_a_page_of_a_listed_origin_passes(guard: Guard, site: bytes | None) -> None:
    read = {"host": b"localhost", "origin": PAGE}
    if site is not None:
        read["sec-fetch-site"] = site
    guard.check(read)
    assert b"localhost" in guard._accepted


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"", b"None", b"none, cross-site"])
def test_a_browser_on_behalf_of_another_site_is_refused(guard: Guard, site: bytes) -> None:
    assert refusal(guard, host=b"localhost", sec_fetch_site=site) == "origin_not_allowed"


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_a_person_who_types_the_address_passes(guard: Guard, site: bytes) -> None:
    guard.check({"host": b"localhost", "sec-fetch-site": site})
    assert b"localhost" in guard._accepted


def test_a_listed_origin_does_not_excuse_a_foreign_host(guard: Guard) -> None:
    assert refusal(guard, host=b"evil.com", origin=PAGE) == "host_not_allowed"


def test_no_origin_is_listed_unless_asked_for() -> None:
    assert refusal(Guard(), host=b"localhost", origin=PAGE) == "origin_not_allowed"
