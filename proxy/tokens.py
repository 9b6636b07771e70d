"""One live token for each key: fetched once for any number of waiters, renewed ahead of time.

What holds, whatever fails:
- A token is handed out only before its expiry, counted from before it was asked for, on a clock
  that does not jump.
- One fetch serves all who wait for it. It is a task of its own: a waiter that is cancelled takes
  nobody else down.
- While renewal fails, a token that is still valid goes on being used.
- Dropping a token after a 401 compares first: a newer one is never dropped.
- Failures back off, refused credentials much longer; `Retry-After` is honoured.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from cachetools import LRUCache

from proxy.errors import ProxyError
from proxy.scrub import needles

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable

    from proxy.clock import Clock

logger = logging.getLogger(__name__)

# Seconds. A refused login is tried rarely: some vendors lock accounts that keep failing.
_BACK_OFF = (0.5, 60.0)
_BACK_OFF_REFUSED = (30.0, 900.0)
_RETRY_AFTER_AT_MOST = 3600.0
# A 401 on a fresh token is often the endpoint's own; logging in for each would be a flood.
_FORCED_BURST = 10
_FORCED_EVERY = 10.0
_RENEW_BETWEEN = (0.70, 0.85)  # of a token's life; spread, so that a fleet does not renew at once


class Token:
    """A token, ready to send: `lines` is its block of header lines. `repr` shows no value.

    `needles` are what an answer must not echo.
    """

    __slots__ = ("expires_at", "lines", "needles", "refresh", "renew_at", "value")

    def __init__(
        self,
        value: str,
        lines: bytes,
        *,
        obtained_at: float,
        lifetime: float,
        refresh: str | None = None,
    ) -> None:
        self.value = value
        self.lines = lines
        self.needles = needles(value.encode())
        self.refresh = refresh
        self.expires_at = obtained_at + lifetime
        self.renew_at = obtained_at + lifetime * random.uniform(*_RENEW_BETWEEN)  # noqa: S311

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at:.0f})"


# Gets the token before (None: log in), returns the next; FetchError if there is none.
Fetch: TypeAlias = "Callable[[Token | None], Coroutine[None, None, Token]]"


class FetchError(Exception):
    """No token came. `detail` is for callers; `refused` means that trying again will not help.

    `retry_after` is what the vendor asked for. `wait` comes from who fetches for this process and
    keeps the back-off: when to ask again, no sooner and no later. Both are in seconds.
    """

    def __init__(
        self,
        detail: str,
        *,
        refused: bool = False,
        retry_after: float | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.refused = refused
        self.retry_after = retry_after
        self.wait = wait


class TokenSlot:
    """The place of one token.

    `warm` slots are renewed for as long as the proxy runs, others while they are used.
    """

    def __init__(
        self,
        fetch: Fetch,
        clock: Clock,
        *,
        warm: bool = False,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._warm = warm
        self._used = False
        self._fetched = False
        self._token: Token | None = None
        self._fetching: asyncio.Task[Token] | None = None
        self._failure: FetchError | None = None
        self._failures = 0
        self._retry_at = 0.0  # for renewals
        self._refuse_until = 0.0  # for callers
        self._forced_at = clock.now() - _FORCED_BURST * _FORCED_EVERY

    async def get(self) -> Token:
        """Return a valid token, waited for if need be; ProxyError (503) if none is to be had."""
        token = self._token
        if token is not None and self._clock.now() < token.expires_at:
            self._used = True
            return token
        return await self._wait_for_fetch()

    async def replace(self, dead: Token) -> Token | None:
        """Return another token after the upstream refused `dead`.

        None if another would be no better: the same value came back, or so many were refused of
        late that the fault lies elsewhere. ProxyError as `get`.
        """
        if self._token is dead:
            if not self._may_force():
                return None
            self._token = None
        token = await self.get()
        return None if token.value == dead.value else token

    def tick(self) -> None:
        """Start a renewal that is due. Called about once a second."""
        now = self._clock.now()
        if self._fetching is not None or now < self._retry_at:
            return
        token = self._token
        due = self._warm if token is None else now >= token.renew_at and (self._used or self._warm)
        if due:
            self._start_fetch()

    def fetch_with(self, fetch: Fetch) -> None:
        """Use other secrets or settings from now on: trying makes sense again."""
        self._fetch = fetch
        self._forgive()

    def _forgive(self) -> None:
        self._failures, self._failure = 0, None
        self._retry_at = self._refuse_until = 0.0

    def expires_in(self) -> float | None:
        """Seconds that the token is still valid, None if there is none."""
        left = self._token.expires_at - self._clock.now() if self._token else 0
        return left if left > 0 else None

    def trouble(self) -> str | None:
        """Say why no token can be had, None if one is held or the next is on its way."""
        if self.expires_in() is not None:
            return None
        if self._failure is not None:
            return self._failure.detail
        return None if self._fetched else "no token has come yet"

    def close(self) -> None:
        """Give up the fetch that is under way, if one is."""
        if self._fetching is not None:
            self._fetching.cancel()

    async def _wait_for_fetch(self) -> Token:
        self._used = True
        fetching = self._fetching
        if fetching is None:
            if self._failure is not None and self._clock.now() < self._refuse_until:
                raise self._unavailable(self._failure)
            fetching = self._start_fetch()
        try:
            return await asyncio.shield(fetching)
        except FetchError as failure:
            raise self._unavailable(failure) from None

    def _unavailable(self, failure: FetchError) -> ProxyError:
        code = "credential_rejected" if failure.refused else "credential_unavailable"
        wait = max(1.0, self._retry_at - self._clock.now())
        return ProxyError(code, failure.detail, retry_after=wait)

    def _start_fetch(self) -> asyncio.Task[Token]:
        fetching = asyncio.create_task(self._fetch_once())
        self._fetching = fetching
        fetching.add_done_callback(_retrieve)
        return fetching

    async def _fetch_once(self) -> Token:
        fetch = self._fetch
        try:
            token = await fetch(self._token)
            if token.expires_at <= self._clock.now():
                raise FetchError("the token had expired by the time it came")  # noqa: TRY301
        except FetchError as failure:
            self._back_off(failure)
            raise
        except Exception as error:  # whatever it is, the next try must still come
            logger.exception("fetching a token failed unexpectedly")
            surprise = FetchError(f"fetching a token failed ({type(error).__name__})")
            self._back_off(surprise)
            raise surprise from error
        else:
            self._token, self._used, self._fetched = token, False, True
            self._forgive()
            return token
        finally:
            self._fetching = None
            if self._fetch is not fetch:  # what became of the old secrets tells nothing of the new
                self._forgive()

    def _back_off(self, failure: FetchError) -> None:
        wait = self._wait_after(failure) if failure.wait is None else failure.wait
        self._failures += 1
        self._failure = failure
        self._retry_at = self._clock.now() + wait
        if self.expires_in() is None:
            # A renewal that failed in time is another matter: once the token is over, a caller's
            # fetch may log in where the renewal could only refresh.
            self._refuse_until = self._retry_at
        if failure.wait is None:  # else who fetches has said so
            logger.warning("%s; next try in %.1f s", failure.detail, wait)

    def _wait_after(self, failure: FetchError) -> float:
        first, most = _BACK_OFF_REFUSED if failure.refused else _BACK_OFF
        wait = min(most, first * 2.0 ** min(self._failures, 16))
        wait *= random.uniform(0.75, 1.25)  # noqa: S311 - spread, not secret
        if failure.retry_after is not None:
            wait = max(wait, min(failure.retry_after, _RETRY_AFTER_AT_MOST))
        return wait

    def _may_force(self) -> bool:
        """Spend one of the fetches that refusals may force: a burst, then one now and then."""
        now = self._clock.now()
        forced_at = max(self._forced_at, now - _FORCED_BURST * _FORCED_EVERY) + _FORCED_EVERY
        if forced_at > now:
            return False
        self._forced_at = forced_at
        return True


def _retrieve(fetching: asyncio.Task[Token]) -> None:
    """Mark a failure as seen, even when every waiter has gone."""
    if not fetching.cancelled():
        fetching.exception()


class TokenStore:
    """All tokens of a process: bounded, by what identifies them, the least used leave first.

    In a process that borrows its tokens from another, `borrow` gives what fetches those of a key.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        size: int = 10_000,
        borrow: Callable[[Hashable], Fetch] | None = None,
    ) -> None:
        self._clock = clock
        self._borrow = borrow
        self._slots: LRUCache[Hashable, TokenSlot] = LRUCache(maxsize=size)
        # Looking at a cached slot makes it recent, so renewal goes through a list of its own.
        self._all: WeakSet[TokenSlot] = WeakSet()

    def slot(
        self,
        key: Hashable,
        fetch: Fetch,
        *,
        warm: bool = False,
    ) -> TokenSlot:
        """Return the key's slot, made when first asked for."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = TokenSlot(self._by(key, fetch), self._clock, warm=warm)
            self._all.add(slot)
        return slot

    def _by(self, key: Hashable, fetch: Fetch) -> Fetch:
        return fetch if self._borrow is None else self._borrow(key)

    def fetch_with(self, key: Hashable, fetch: Fetch) -> None:
        """Let a key's next fetch go by new secrets or settings, whatever failed before."""
        slot = self._slots.get(key)
        if slot is not None:
            slot.fetch_with(self._by(key, fetch))

    def drop(self, keys: Iterable[Hashable]) -> None:
        """Forget keys that no configuration names any more: nothing renews them from now on."""
        for key in keys:
            slot = self._slots.pop(key, None)
            if slot is not None:
                self._all.discard(slot)

    def tick(self) -> None:
        """Start whatever renewals are due."""
        for slot in list(self._all):
            slot.tick()

    def close(self) -> None:
        """Give up the fetches that are under way."""
        for slot in list(self._all):
            slot.close()
