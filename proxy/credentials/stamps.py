"""Eko's millisecond timestamps: none used twice under one access key, none far from the truth.

Eko refuses a stamp that is over two minutes off its clock, or that an earlier request used. So
stamps rise strictly, and may run ahead of the clock when one millisecond sees several requests;
when they would run too far ahead, the next request waits instead of leaving with a bad stamp.

Several processes under one key each keep to a `Share` of the milliseconds, without talking.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.clock import Clock

logger = logging.getLogger(__name__)

AHEAD_AT_MOST = 30_000  # milliseconds; the vendor's tolerance is four times that


class Share:
    """One process's share of the milliseconds: those that leave `index` when divided by `of`.

    `used` is one cell (`q`) of memory that outlives the process: the highest stamp that it has
    used, behind which its successor goes on, however the process ended.
    """

    def __init__(self, index: int, of: int, used: memoryview) -> None:
        self._index = index
        self._of = of
        self._used = used

    def first(self, earliest: int) -> int:
        """Return the first of its milliseconds that is not before `earliest`."""
        return earliest + (self._index - earliest) % self._of

    def use(self, stamp: int) -> None:
        """Take note of a stamp, before it is used."""
        self._used[0] = max(self._used[0], stamp)

    def used_until(self, now: int) -> int:
        """Return the highest stamp used so far.

        0 if the clock shows that it was set back since: none can be so far ahead.
        """
        if self._used[0] > now + AHEAD_AT_MOST:
            self._used[0] = 0
        return int(self._used[0])


class Stamps:
    """Stamps for one access key: all of them, or a process's share."""

    def __init__(self, clock: Clock, share: Share | None = None) -> None:
        self._clock = clock
        self._share = share
        self._last = 0 if share is None else share.used_until(clock.wall_ms())
        self._read = 0  # the highest reading of the clock since it was last set back

    async def next(self) -> int:
        """Return milliseconds since the epoch, never twice the same, waiting if need be."""
        while True:
            now = self._clock.wall_ms()
            if now < self._read - AHEAD_AT_MOST:
                self._clock_set_back(now)
            self._read = max(self._read, now)
            stamp = max(now, self._last + 1)
            if self._share is not None:
                stamp = self._share.first(stamp)
            self._last = stamp
            ahead = stamp - now - AHEAD_AT_MOST
            if ahead > 0:
                await self._clock.sleep(ahead / 1000)
                if stamp - self._clock.wall_ms() > AHEAD_AT_MOST:
                    continue  # the clock was set back meanwhile: this stamp is lost
            if self._share is not None:
                self._share.use(stamp)
            return stamp

    def _clock_set_back(self, now: int) -> None:
        """Start over from the corrected clock: what follows the old one would all be refused.

        A stamp that was used before the correction may come again; Eko then answers 2485, which
        is signed anew.
        """
        logger.warning("the clock was set back by %d s", (self._read - now) // 1000)
        self._last = 0
        self._read = now
        if self._share is not None:
            self._share.used_until(now)


class ClockStamps(Stamps):
    """`timestamps: clock`: the clock as it stands, repeats and all."""

    async def next(self) -> int:
        """Return the present millisecond."""
        return self._clock.wall_ms()


class StampStore:
    """The stamps of every access key in use, so that two credentials with one key share them."""

    def __init__(self, clock: Clock, share: Share | None = None) -> None:
        self._clock = clock
        self._share = share
        self._stamps: dict[bytes, Stamps] = {}

    def of(self, access_key: str) -> Stamps:
        """Return the key's stamps. A digest is kept, not the key."""
        digest = hashlib.sha256(access_key.encode()).digest()
        return self._stamps.setdefault(digest, Stamps(self._clock, self._share))
