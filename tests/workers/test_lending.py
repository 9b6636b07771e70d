"""Tokens that a worker borrows: one login for all, and a refused one is replaced once."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest

from proxy.credentials.base import Credential
from proxy.errors import ProxyError
from proxy.tokens import FetchError, Token, TokenSlot, TokenStore
from proxy.workers import lending
from proxy.workers.channel import Channel
from tests.support import ManualClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable


KEY = ("eka", "https://vendor.example", "client", "digest")


class Vendor(Credential):
    """A credential of one token; its vendor answers as told, and counts."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.logins = 0
        self.failure: FetchError | None = None
        self.slot = TokenSlot(self.fetch, clock)

    async def fetch(self, before: Token | None) -> Token:
        del before
        self.logins += 1
        if self.failure is not None:
            raise self.failure
        value = f"canary-{self.logins}"
        return Token(value, value.encode(), obtained_at=self.clock.now(), lifetime=1000)

    def token_slot(self, key: Hashable) -> TokenSlot | None:
        return self.slot if key == KEY else None


class Office:
    """A supervisor that lends, to as many workers as ask."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self.asked = 0
        self._channels: list[Channel] = []
        self._tasks: list[asyncio.Task[None]] = []

    def worker(self, key: Hashable = KEY) -> TokenSlot:
        """Return a new worker's slot."""
        ours, theirs = map(Channel, socket.socketpair())
        self._channels += [ours, theirs]
        self._tasks.append(asyncio.create_task(self._serve(ours)))
        borrower = lending.Borrower(theirs, self.vendor.clock)
        store = TokenStore(self.vendor.clock, borrow=borrower.fetch_for)
        return store.slot(key, never)

    async def _serve(self, channel: Channel) -> None:
        async for question in channel.messages():
            self.asked += 1
            channel.answer(question, await lending.lend(question.fields, [self.vendor]))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


async def never(before: Token | None) -> Token:
    """Fail the test: a worker never logs in."""
    raise AssertionError(before)


@pytest.fixture
async def office(manual_clock: ManualClock) -> AsyncIterator[Office]:
    office = Office(Vendor(manual_clock))
    yield office
    office.close()


async def error_of(slot: TokenSlot) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await slot.get()
    return caught.value


async def test_one_login_serves_all_workers(office: Office) -> None:
    workers = [office.worker() for _ in range(10)]
    tokens = await asyncio.gather(*(worker.get() for worker in workers for _ in range(10)))
    assert {token.value for token in tokens} == {"canary-1"}
    assert {token.lines for token in tokens} == {b"canary-1"}
    assert office.vendor.logins == 1
    assert office.asked == 10  # once each


async def test_what_is_borrowed_expires_when_the_token_does(
    office: Office, manual_clock: ManualClock
) -> None:
    first = office.worker()
    await first.get()
    await manual_clock.advance(900)
    second = office.worker()
    token = await second.get()
    assert second.expires_in() == 100
    await manual_clock.advance(100)
    assert (await second.get()).value != token.value
    assert office.vendor.logins == 2


async def test_a_token_that_was_renewed_is_borrowed_anew_ahead_of_time(
    office: Office, manual_clock: ManualClock
) -> None:
    slot = office.worker()
    assert (await slot.get()).value == "canary-1"
    for _ in range(1000):
        await manual_clock.advance(1)
        office.vendor.slot.tick()
        await slot.get()  # it is in use
        slot.tick()
        await settle()
    assert office.vendor.logins == 2
    assert (await slot.get()).value == "canary-2"


async def test_a_refusal_in_all_workers_is_one_login(office: Office) -> None:
    workers = [office.worker() for _ in range(10)]
    dead = await asyncio.gather(*(worker.get() for worker in workers))
    pairs = zip(workers, dead, strict=True)
    new = await asyncio.gather(*(worker.replace(token) for worker, token in pairs))
    assert {token.value for token in new if token} == {"canary-2"}
    assert office.vendor.logins == 2


async def test_a_late_refusal_of_an_old_token_is_no_login(office: Office) -> None:
    first, late = office.worker(), office.worker()
    one, other = await first.get(), await late.get()
    await first.replace(one)
    new = await late.replace(other)
    assert new is not None
    assert new.value == "canary-2"
    assert office.vendor.logins == 2


async def test_refusals_without_end_are_a_bounded_number_of_logins(
    office: Office, manual_clock: ManualClock
) -> None:
    """However many workers there are to be refused."""
    workers = [office.worker() for _ in range(4)]
    for _ in range(30):
        for worker in workers:
            await worker.replace(await worker.get())
    assert office.vendor.logins == 1 + 10
    assert (await workers[0].get()).value == "canary-11"
    await manual_clock.advance(10)
    assert await workers[0].replace(await workers[0].get()) is not None
    assert office.vendor.logins == 12


async def test_a_refusal_is_told_after_new_settings_too(office: Office) -> None:
    ours, theirs = map(Channel, socket.socketpair())
    asked: list[Any] = []

    async def serve() -> None:
        async for question in ours.messages():
            asked.append(question.fields["refused"])
            ours.answer(question, await lending.lend(question.fields, [office.vendor]))

    task = asyncio.create_task(serve())
    clock = office.vendor.clock
    store = TokenStore(clock, borrow=lending.Borrower(theirs, clock).fetch_for)
    slot = store.slot(KEY, never)
    dead = await slot.get()
    store.fetch_with(KEY, never)
    assert await slot.replace(dead) is not None
    assert asked == [None, "canary-1"]
    ours.close()
    theirs.close()
    await task


@pytest.mark.parametrize(
    ("refused", "code"), [(True, "credential_rejected"), (False, "credential_unavailable")]
)
async def test_a_login_that_fails_is_tried_as_rarely_as_by_one_process(
    office: Office, manual_clock: ManualClock, *, refused: bool, code: str
) -> None:
    office.vendor.failure = FetchError("no such luck", refused=refused)
    workers = [office.worker() for _ in range(5)]
    for worker in workers * 3:
        error = await error_of(worker)
        assert (error.code, error.detail) == (code, "no such luck")
    assert office.vendor.logins == 1
    assert worker.trouble() == "no such luck"
    for _ in range(100):
        await manual_clock.advance(1)
        for worker in workers:
            await error_of(worker)
    assert office.vendor.logins <= 8


async def test_the_back_off_is_the_supervisors_alone(
    office: Office, manual_clock: ManualClock
) -> None:
    """None of a worker's own adds to it: once the login may be well, workers ask again."""
    office.vendor.failure = FetchError("no such luck", refused=True)
    slot = office.worker()
    for _ in range(6):
        await error_of(slot)
        await manual_clock.advance(2000)  # longer than any back-off
    office.vendor.slot.fetch_with(office.vendor.fetch)  # as other secrets would have it
    wait = (await error_of(slot)).retry_after
    assert wait is not None
    assert wait < 40
    office.vendor.failure = None
    await manual_clock.advance(wait)
    await slot.get()


async def test_a_failure_is_logged_where_it_happens_alone(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.vendor.failure = FetchError("no such luck")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            await error_of(office.worker())
    assert len([each for each in caplog.messages if "no such luck" in each]) == 1


async def test_a_key_that_no_configuration_has_any_more_gets_no_token(office: Office) -> None:
    slot = office.worker((*KEY[:3], "another"))
    error = await error_of(slot)
    assert error.code == "credential_unavailable"
    assert "configuration has changed" in error.detail


async def test_without_a_supervisor_there_is_no_token(office: Office) -> None:
    slot = office.worker()
    office.close()
    assert (await error_of(slot)).code == "credential_unavailable"
