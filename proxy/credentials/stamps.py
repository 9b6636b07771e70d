"""Eko's millisecond timestamps: none used twice under one access key, none far from the truth.

Eko refuses a stamp that is over two minutes off its clock, or that an earlier request used. So
stamps rise strictly, and may run ahead of the clock when one millisecond sees several requests;
when they would run too far ahead, the next request waits instead of leaving with a bad stamp.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.clock import Clock

logger = logging.getLogger(__name__)

AHEAD_AT_MOST = 30_000  # milliseconds; the vendor's tolerance is four times that


class Stamps:
    """Stamps for one access key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._read = 0  # the highest reading of the clock since it was last set back

    async def next(self) -> int:
        """Return milliseconds since the epoch, never twice the same, waiting if need be."""
        while True:
            now = self._clock.wall_ms()
            if now < self._read - AHEAD_AT_MOST:
                self._clock_set_back(now)
            self._read = max(self._read, now)
            stamp = self._last = max(now, self._last + 1)
            ahead = stamp - now - AHEAD_AT_MOST
            if ahead <= 0:
                return stamp
            await self._clock.sleep(ahead / 1000)
            if stamp - self._clock.wall_ms() <= AHEAD_AT_MOST:
                return stamp
            # The clock was set back meanwhile: this stamp is lost, the next one will do.

    def _clock_set_back(self, now: int) -> None:
        """Start over from the corrected clock: what follows the old one would all be refused.

        A stamp that was used before the correction may come again; Eko then answers 2485, which
        is signed anew.
        """
        logger.warning("the clock was set back by %d s", (self._read - now) // 1000)
        self._last = 0
        self._read = now


class ClockStamps(Stamps):
    """`timestamps: clock`: the clock as it stands, repeats and all."""

    async def next(self) -> int:
        """Return the present millisecond."""
        return self._clock.wall_ms()


class StampStore:
    """The stamps of every access key in use, so that two credentials with one key share them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stamps: dict[bytes, Stamps] = {}

    def of(self, access_key: str) -> Stamps:
        """Return the key's stamps. A digest is kept, not the key."""
        digest = hashlib.sha256(access_key.encode()).digest()
        return self._stamps.setdefault(digest, Stamps(self._clock))
