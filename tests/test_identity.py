"""Who calls, and by which name: keys, users, certificates."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import identity
from proxy.errors import ProxyError
from proxy.identity import Callers, Keys

ONE, OTHER = "canary-one-4f1d2c", "canary-other-99b07a"
KEYS = Keys({"one": ONE, "other": OTHER})


def refusal(callers: Callers, key: bytes | None, *proven: str) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        callers.identify(key, proven)
    assert "canary" not in repr(caught.value)
    return caught.value


def test_each_key_tells_its_name() -> None:
    callers = Callers(KEYS)
    assert callers.identify(ONE.encode(), ()) == ("one",)
    assert callers.identify(OTHER.encode(), ()) == ("other",)


@pytest.mark.parametrize(
    "key",
    [None, b"", b"x", ONE[:-1].encode(), ONE.encode() + b"0", ONE.upper().encode(), b"\xff" * 99],
)
def test_no_key_or_a_wrong_one_is_unknown(key: bytes | None) -> None:
    found = refusal(Callers(KEYS), key)
    assert (found.code, found.status) == ("caller_unknown", 401)


@given(st.binary(max_size=64))
def test_nothing_but_a_key_is_a_key(given_key: bytes) -> None:
    assert KEYS.find(given_key) is None


def test_a_key_is_compared_with_all_and_only_by_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that ends early, or that sees lengths, tells of the key by the time it takes."""
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (ONE.encode(), b"x"):
        compared.clear()
        KEYS.find(key)
        assert compared == [(32, 32)] * 2


def test_no_key_is_kept_or_shown() -> None:
    assert "canary" not in repr(vars(KEYS)) + repr(KEYS)


def test_a_wrong_key_is_refused_whatever_the_connection_proves() -> None:
    callers = Callers(KEYS, [1000], certificates=True)
    assert callers.identify(None, ("uid:1000",)) == ("uid:1000",)
    assert refusal(callers, b"wrong", "uid:1000", "cert:a").code == "caller_unknown"


def test_what_a_connection_proves_counts_where_it_is_asked_for() -> None:
    proven = ("cert:app.internal", "uid:1000")
    assert Callers(KEYS, [1000]).identify(None, proven) == ("uid:1000",)
    assert Callers(KEYS, certificates=True).identify(None, proven) == ("cert:app.internal",)
    assert Callers(KEYS, [1000], certificates=True).identify(ONE.encode(), proven) == (
        *("one", "cert:app.internal", "uid:1000"),
    )
    assert refusal(Callers(KEYS, [1, 10, 100]), None, *proven).code == "caller_unknown"


def test_a_key_says_nothing_where_there_are_none() -> None:
    assert Callers(Keys({}), [1000]).identify(b"whatever", ("uid:1000",)) == ("uid:1000",)
    assert refusal(Callers(Keys({}), [1000]), b"whatever").code == "caller_unknown"


def test_a_refusal_tells_what_would_do() -> None:
    assert "X-Ekeko-Key" in refusal(Callers(KEYS), None).detail
    assert "access.uids" in refusal(Callers(Keys({}), [0]), None).detail
    assert "certificate" in refusal(Callers(Keys({}), certificates=True), None).detail
    assert "nobody" in refusal(Callers(Keys({})), None).detail


def test_a_route_serves_all_that_are_known_or_those_that_it_names() -> None:
    assert identity.serve(("one", "uid:1"), None) == "one"
    assert identity.serve(("one", "uid:1"), {"uid:1", "other"}) == "uid:1"
    with pytest.raises(ProxyError) as caught:
        identity.serve(("one", "uid:1"), {"uid:10"})
    assert (caught.value.code, caught.value.status) == ("caller_not_allowed", 403)


def test_a_rotated_key_replaces_the_one_before() -> None:
    keys = Keys({"one": ONE})
    keys.renew({"one": OTHER})
    assert keys.find(ONE.encode()) is None
    assert keys.find(OTHER.encode()) == "one"


def test_two_keys_may_change_places() -> None:
    keys = Keys({"one": ONE, "other": OTHER})
    keys.renew({"one": OTHER, "other": ONE})
    assert keys.find(ONE.encode()) == "other"
