"""One live token for each key, whatever its waiters, its source and the clock do."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from proxy.errors import ProxyError
from proxy.tokens import FetchError, Token, TokenSlot, TokenStore
from tests.support import ManualClock, settle

LIFE = 1000.0
CANARY = "canary-token"


class Vendor:
    """Issues tokens. Each fetch takes the next outcome; none left: a new token."""

    def __init__(self, clock: ManualClock, *, life: float = LIFE) -> None:
        self.clock = clock
        self.life = life
        self.before: list[Token | None] = []
        self.outcomes: list[Exception | Token] = []
        self.gate: asyncio.Event | None = None

    @property
    def fetches(self) -> int:
        return len(self.before)

    async def fetch(self, before: Token | None) -> Token:
        self.before.append(before)
        started, number = self.clock.now(), self.fetches
        if self.gate is not None:
            await self.gate.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome or token(f"{CANARY}-{number}", started, self.life)


def token(value: str, at: float, life: float = LIFE) -> Token:
    return Token(value, value.encode(), obtained_at=at, lifetime=life)


@pytest.fixture
def vendor(manual_clock: ManualClock) -> Vendor:
    return Vendor(manual_clock)


@pytest.fixture
def slot(vendor: Vendor, manual_clock: ManualClock) -> TokenSlot:
    return TokenSlot(vendor.fetch, manual_clock)


async def refusal(slot: TokenSlot) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await slot.get()
    return caught.value


# One fetch for all.


async def test_five_hundred_callers_share_one_fetch(slot: TokenSlot, vendor: Vendor) -> None:
    vendor.gate = asyncio.Event()
    waiting = [asyncio.create_task(slot.get()) for _ in range(500)]
    await settle()
    vendor.gate.set()
    tokens = await asyncio.gather(*waiting)
    assert vendor.fetches == 1
    assert len(set(map(id, tokens))) == 1


async def test_a_caller_who_leaves_takes_nobody_along(slot: TokenSlot, vendor: Vendor) -> None:
    vendor.gate = asyncio.Event()
    first, second = asyncio.create_task(slot.get()), asyncio.create_task(slot.get())
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    assert not second.done()
    vendor.gate.set()
    assert (await second).value == f"{CANARY}-1"
    assert vendor.fetches == 1


async def test_a_fetch_whose_callers_all_left_serves_the_next(
    slot: TokenSlot, vendor: Vendor
) -> None:
    vendor.gate = asyncio.Event()
    waiting = [asyncio.create_task(slot.get()) for _ in range(3)]
    await settle()
    for task in waiting:
        task.cancel()
    await settle()
    late = asyncio.create_task(slot.get())
    vendor.gate.set()
    assert (await late).value == f"{CANARY}-1"
    assert (await slot.get()).value == f"{CANARY}-1"
    assert vendor.fetches == 1


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_lost(
    slot: TokenSlot, vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    vendor.gate, vendor.outcomes = asyncio.Event(), [FetchError("no")]
    waiting = asyncio.create_task(slot.get())
    await settle()
    waiting.cancel()
    vendor.gate.set()
    await settle()
    assert slot.trouble() == "no"
    warm = TokenSlot(vendor.fetch, vendor.clock, warm=True)
    vendor.outcomes = [FetchError("not either")]
    warm.tick()
    await settle()
    assert warm.trouble() == "not either"
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_failure_reaches_every_caller_who_waits(slot: TokenSlot, vendor: Vendor) -> None:
    vendor.gate, vendor.outcomes = asyncio.Event(), [FetchError("no such luck")]
    waiting = [asyncio.create_task(slot.get()) for _ in range(20)]
    await settle()
    vendor.gate.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(failure) for failure in failures} == {"no such luck"}
    assert all(isinstance(failure, ProxyError) for failure in failures)
    assert vendor.fetches == 1


# Expiry.


async def test_an_expired_token_is_never_handed_out(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    first = await slot.get()
    await manual_clock.advance(LIFE - 0.001)
    assert await slot.get() is first
    await manual_clock.advance(0.001)
    vendor.outcomes = [FetchError("down")]
    assert (await refusal(slot)).code == "credential_unavailable"
    assert slot.expires_in() is None


async def test_a_life_counts_from_before_the_token_was_asked_for(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.gate = asyncio.Event()
    waiting = asyncio.create_task(slot.get())
    await settle()
    await manual_clock.advance(400)
    vendor.gate.set()
    await waiting
    assert slot.expires_in() == pytest.approx(LIFE - 400)


async def test_a_token_that_expired_on_its_way_is_not_used(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.gate = asyncio.Event()
    waiting = asyncio.create_task(slot.get())
    await settle()
    await manual_clock.advance(LIFE)
    vendor.gate.set()
    with pytest.raises(ProxyError, match="expired by the time it came"):
        await waiting
    assert slot.expires_in() is None


async def test_the_wall_clock_has_no_say_in_expiry(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    first = await slot.get()
    for jump in (600_000, -1_200_000, 10**9):
        manual_clock.jump_wall(jump)
        slot.tick()
        await settle()
        assert await slot.get() is first
    assert vendor.fetches == 1


async def test_a_life_of_one_second_works(vendor: Vendor, manual_clock: ManualClock) -> None:
    vendor.life = 1.0
    slot = TokenSlot(vendor.fetch, manual_clock)
    values = []
    for _ in range(5):
        values.append((await slot.get()).value)
        await manual_clock.advance(1)
    assert len(set(values)) == 5


# Renewal ahead of time.


async def test_renewal_begins_between_seventy_and_eighty_five_percent_of_a_life(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    shares = [(token("t", 1000.0).renew_at - 1000.0) / LIFE for _ in range(500)]
    assert all(0.70 <= share <= 0.85 for share in shares)
    assert max(shares) - min(shares) > 0.1
    slot = TokenSlot(vendor.fetch, manual_clock)
    first = await slot.get()
    await slot.get()
    await manual_clock.advance(first.renew_at - manual_clock.now() - 0.01)
    slot.tick()
    await settle()
    assert vendor.fetches == 1
    await manual_clock.advance(0.02)
    slot.tick()
    await settle()
    assert vendor.before == [None, first]
    assert (await slot.get()).value == f"{CANARY}-2"


async def test_one_renewal_runs_at_a_time_and_callers_do_not_wait_for_it(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    first = await slot.get()
    await slot.get()
    vendor.gate = asyncio.Event()
    await manual_clock.advance(0.9 * LIFE)
    for _ in range(5):
        slot.tick()
        await settle()
        assert await slot.get() is first
    assert vendor.fetches == 2
    vendor.gate.set()
    await settle()
    assert await slot.get() is not first


async def test_a_valid_token_is_used_while_renewal_fails(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    first = await slot.get()
    await slot.get()
    vendor.outcomes = [FetchError("down")] * 100
    await manual_clock.advance(0.9 * LIFE)
    for _ in range(99):
        slot.tick()
        await manual_clock.advance(1)
        assert await slot.get() is first
    assert slot.trouble() is None
    assert 2 < vendor.fetches < 20
    await manual_clock.advance(1)
    assert (await refusal(slot)).code == "credential_unavailable"


async def test_a_token_that_nobody_uses_is_left_to_lapse(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    await slot.get()
    for _ in range(20):
        await manual_clock.advance(LIFE / 10)
        slot.tick()
        await settle()
    assert vendor.fetches == 1


async def test_a_warm_slot_fetches_and_renews_unasked(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    slot = TokenSlot(vendor.fetch, manual_clock, warm=True)
    for _ in range(31):
        slot.tick()
        await settle()
        await manual_clock.advance(LIFE / 10)
    assert vendor.fetches == 4
    assert slot.expires_in() is not None


# Failures.


async def waits(slot: TokenSlot, clock: ManualClock, failures: int) -> list[float]:
    """Fail so many times; return how long each back-off lasted."""
    lasted = []
    for _ in range(failures):
        await refusal(slot)
        lasted.append(slot._retry_at - clock.now())
        await clock.advance(lasted[-1])
    return lasted


async def test_back_off_grows_to_a_minute(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.outcomes = [FetchError("down")] * 40
    lasted = await waits(slot, manual_clock, 40)
    for number, wait in enumerate(lasted):
        expected = min(60.0, 0.5 * 2**number)
        assert 0.75 * expected <= wait <= 1.25 * expected
    assert vendor.fetches == 40


async def test_refused_credentials_are_tried_rarely(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.outcomes = [FetchError("wrong", refused=True)] * 10
    assert (await refusal(slot)).code == "credential_rejected"
    await manual_clock.advance(slot._retry_at - manual_clock.now())
    lasted = await waits(slot, manual_clock, 9)
    assert lasted[0] >= 0.75 * 60
    assert all(wait >= 0.75 * 900 for wait in lasted[5:])
    assert all(wait <= 1.25 * 900 for wait in lasted)


async def test_nothing_is_fetched_during_a_back_off(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.outcomes = [FetchError("down", retry_after=50)]
    first = await refusal(slot)
    assert first.retry_after == pytest.approx(50)
    await manual_clock.advance(20)
    for _ in range(100):
        slot.tick()
        again = await refusal(slot)
        assert again.retry_after == pytest.approx(30)
    assert vendor.fetches == 1
    await manual_clock.advance(30)
    assert (await slot.get()).value == f"{CANARY}-2"


async def test_a_retry_after_is_at_least_a_second(slot: TokenSlot, vendor: Vendor) -> None:
    vendor.outcomes = [FetchError("down")]
    assert (await refusal(slot)).retry_after == 1.0


@pytest.mark.parametrize(("told", "kept"), [(120.0, 120.0), (1e12, 3600.0), (float("inf"), 3600.0)])
async def test_the_vendors_retry_after_is_honoured_within_an_hour(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock, told: float, kept: float
) -> None:
    vendor.outcomes = [FetchError("busy", retry_after=told)]
    assert (await waits(slot, manual_clock, 1))[0] == pytest.approx(kept)


@pytest.mark.parametrize("told", [0.0, -5.0])
async def test_a_retry_after_of_nothing_does_not_shorten_the_back_off(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock, told: float
) -> None:
    vendor.outcomes = [FetchError("busy", retry_after=told)]
    assert (await waits(slot, manual_clock, 1))[0] >= 0.75 * 0.5


async def test_success_ends_the_back_off_for_good(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.outcomes = [FetchError("down")] * 8
    await waits(slot, manual_clock, 8)
    await slot.get()
    assert slot.trouble() is None
    await manual_clock.advance(LIFE)
    vendor.outcomes = [FetchError("down")]
    assert (await waits(slot, manual_clock, 1))[0] <= 1.25 * 0.5


async def test_an_unexpected_error_is_survived_and_tried_again(
    slot: TokenSlot,
    vendor: Vendor,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vendor.outcomes = [ZeroDivisionError("surprise")]
    error = await refusal(slot)
    assert error.code == "credential_unavailable"
    assert error.detail == "fetching a token failed (ZeroDivisionError)"
    assert "failed unexpectedly" in caplog.text
    await manual_clock.advance(2)
    assert (await slot.get()).value == f"{CANARY}-2"


async def test_trouble_tells_why_there_is_no_token(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    assert slot.trouble() == "no token has come yet"
    vendor.outcomes = [FetchError("the vendor is closed")]
    await refusal(slot)
    assert slot.trouble() == "the vendor is closed"
    await manual_clock.advance(2)
    await slot.get()
    assert slot.trouble() is None


# After a refusal by the upstream.


async def test_a_refused_token_is_replaced_by_a_login(slot: TokenSlot, vendor: Vendor) -> None:
    dead = await slot.get()
    new = await slot.replace(dead)
    assert new is not None
    assert new.value == f"{CANARY}-2"
    assert await slot.get() is new
    assert vendor.before == [None, None]


async def test_a_newer_token_is_not_dropped_for_an_older_ones_refusal(
    slot: TokenSlot, vendor: Vendor
) -> None:
    dead = await slot.get()
    new = await slot.replace(dead)
    for _ in range(20):
        assert await slot.replace(dead) is new
    assert vendor.fetches == 2


async def test_many_refusals_of_one_token_fetch_once(slot: TokenSlot, vendor: Vendor) -> None:
    dead = await slot.get()
    vendor.gate = asyncio.Event()
    waiting = [asyncio.create_task(slot.replace(dead)) for _ in range(100)]
    await settle()
    vendor.gate.set()
    values = {new.value for new in await asyncio.gather(*waiting) if new}
    assert values == {f"{CANARY}-2"}
    assert vendor.fetches == 2


async def test_a_refusal_during_a_renewal_waits_for_that_renewal(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    dead = await slot.get()
    await slot.get()
    vendor.gate = asyncio.Event()
    await manual_clock.advance(0.9 * LIFE)
    slot.tick()
    waiting = asyncio.create_task(slot.replace(dead))
    await settle()
    vendor.gate.set()
    new = await waiting
    assert new is not None
    assert new.value == f"{CANARY}-2"
    assert vendor.fetches == 2


async def test_the_same_value_again_is_no_replacement(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    dead = await slot.get()
    vendor.outcomes = [token(dead.value, manual_clock.now())]
    assert await slot.replace(dead) is None


async def test_refusals_cannot_force_fetches_without_end(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    async def refuse(times: int) -> int:
        replaced = 0
        for _ in range(times):
            replaced += await slot.replace(await slot.get()) is not None
        return replaced

    assert await refuse(50) == 10
    held = await slot.get()
    assert await slot.replace(held) is None
    assert await slot.get() is held
    await manual_clock.advance(10)
    assert await refuse(50) == 1
    await manual_clock.advance(35)
    assert await refuse(50) == 3
    assert vendor.fetches == 15


async def test_a_replacement_that_cannot_be_had_is_an_error(
    slot: TokenSlot, vendor: Vendor
) -> None:
    dead = await slot.get()
    vendor.outcomes = [FetchError("down")]
    with pytest.raises(ProxyError) as caught:
        await slot.replace(dead)
    assert caught.value.code == "credential_unavailable"


# Other secrets, the end, the looks.


async def test_other_secrets_are_tried_at_once_whatever_failed_before(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.outcomes = [FetchError("wrong", refused=True)]
    await refusal(slot)
    other = Vendor(manual_clock)
    slot.fetch_with(other.fetch)
    assert slot.trouble() == "no token has come yet"
    assert (await slot.get()).value == f"{CANARY}-1"
    assert (vendor.fetches, other.fetches) == (1, 1)


async def test_a_failure_with_the_old_secrets_does_not_hold_up_the_new(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock
) -> None:
    vendor.gate, vendor.outcomes = asyncio.Event(), [FetchError("wrong", refused=True)]
    waiting = asyncio.create_task(slot.get())
    await settle()
    slot.fetch_with(Vendor(manual_clock).fetch)
    vendor.gate.set()
    with pytest.raises(ProxyError):
        await waiting
    assert (await slot.get()).value == f"{CANARY}-1"


async def test_a_token_outlives_the_secrets_that_it_was_got_with(
    slot: TokenSlot, manual_clock: ManualClock
) -> None:
    held = await slot.get()
    slot.fetch_with(Vendor(manual_clock).fetch)
    assert await slot.get() is held


async def test_close_gives_up_the_fetch_under_way(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    store = TokenStore(manual_clock)
    vendor.gate = asyncio.Event()
    waiting = asyncio.create_task(store.slot("a", vendor.fetch).get())
    idle = store.slot("b", vendor.fetch)
    await settle()
    store.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    vendor.gate = None
    assert (await idle.get()).value == f"{CANARY}-2"


async def test_no_token_is_in_a_repr_or_a_log(
    slot: TokenSlot, vendor: Vendor, manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    held = await slot.get()
    vendor.outcomes = [FetchError("down"), ValueError("odd")]
    await manual_clock.advance(LIFE)
    await waits(slot, manual_clock, 2)
    for shown in (repr(held), str(held), f"{held}", repr(slot), caplog.text):
        assert "canary" not in shown
    assert repr(held) == "Token(expires_at=2000)"


# The store.


async def test_a_key_keeps_its_slot(vendor: Vendor, manual_clock: ManualClock) -> None:
    store = TokenStore(manual_clock)
    first = store.slot(("eka", "a"), vendor.fetch)
    assert store.slot(("eka", "a"), vendor.fetch) is first
    assert store.slot(("eka", "b"), vendor.fetch) is not first


async def test_the_least_used_slots_leave_a_full_store(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    store = TokenStore(manual_clock, size=2)
    kept = store.slot("a", vendor.fetch)
    gone = store.slot("b", vendor.fetch)
    store.slot("a", vendor.fetch)
    store.slot("c", vendor.fetch)
    assert store.slot("a", vendor.fetch) is kept
    assert store.slot("b", vendor.fetch) is not gone


async def test_a_slot_that_left_serves_those_who_hold_it_and_is_then_forgotten(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    store = TokenStore(manual_clock, size=1)
    vendor.gate = asyncio.Event()
    waiting = asyncio.create_task(store.slot("a", vendor.fetch).get())
    await settle()
    store.slot("b", vendor.fetch)
    vendor.gate.set()
    assert (await waiting).value == f"{CANARY}-1"
    del waiting
    await settle()
    gc.collect()
    assert len(store._all) == 1


async def test_ticking_keeps_used_and_warm_tokens_and_lets_others_lapse(
    manual_clock: ManualClock,
) -> None:
    store = TokenStore(manual_clock)
    vendors = {name: Vendor(manual_clock) for name in ("used", "unused", "warm")}
    slots = {
        name: store.slot(name, each.fetch, warm=name == "warm") for name, each in vendors.items()
    }
    await slots["used"].get()
    await slots["unused"].get()
    for _ in range(30):
        await slots["used"].get()
        store.tick()
        await settle()
        await manual_clock.advance(LIFE / 10)
    assert vendors["unused"].fetches == 1
    assert vendors["used"].fetches == 4
    assert vendors["warm"].fetches == 4


async def test_ticking_does_not_make_a_slot_recently_used(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    store = TokenStore(manual_clock, size=2)
    old = store.slot("old", vendor.fetch, warm=True)
    store.slot("new", vendor.fetch)
    store.tick()
    await settle()
    store.slot("newest", vendor.fetch)
    assert store.slot("old", vendor.fetch) is not old


async def test_other_secrets_reach_a_keys_slot_and_an_unknown_key_is_no_matter(
    vendor: Vendor, manual_clock: ManualClock
) -> None:
    store = TokenStore(manual_clock)
    other = Vendor(manual_clock)
    slot = store.slot("a", vendor.fetch)
    store.fetch_with("a", other.fetch)
    store.fetch_with("b", other.fetch)
    await slot.get()
    assert (vendor.fetches, other.fetches) == (0, 1)


async def test_a_renewal_that_failed_in_time_does_not_refuse_the_fetch_that_follows_expiry(
    manual_clock: ManualClock,
) -> None:
    fetches = 0

    async def fetch(before: Token | None) -> Token:
        nonlocal fetches
        fetches += 1
        if before is not None and manual_clock.now() < before.expires_at:
            raise FetchError("the refresh is broken", retry_after=3600)
        return Token(f"t{fetches}", b"", obtained_at=manual_clock.now(), lifetime=10)

    slot = TokenSlot(fetch, manual_clock, warm=True)
    assert (await slot.get()).value == "t1"
    await manual_clock.advance(9)
    slot.tick()
    await settle()
    assert fetches == 2
    assert (await slot.get()).value == "t1"
    await manual_clock.advance(2)
    assert (await slot.get()).value == "t3"
