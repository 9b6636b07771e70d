"""Tokens for workers: the supervisor logs in, once for all, and its workers borrow.

A worker keeps what it has borrowed in a `TokenSlot` of its own, so most requests ask nobody. What
it was told is refused goes along when it asks again; the supervisor compares before it logs in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.errors import ProxyError
from proxy.tokens import FetchError, Token
from proxy.workers.channel import ChannelClosedError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from proxy.clock import Clock
    from proxy.credentials.base import Credential
    from proxy.tokens import Fetch, TokenSlot
    from proxy.workers.channel import Channel

QUESTION = "token"
_TRY_AGAIN = 1.0  # seconds


async def lend(question: dict[str, Any], credentials: Iterable[Credential]) -> dict[str, Any]:
    """Answer a worker (in the supervisor): a valid token, or why there is none."""
    slot = _slot(tuple(question["key"]), credentials)
    if slot is None:
        return _failure("The configuration has changed.", wait=_TRY_AGAIN)
    try:
        token = await slot.get()
        if token.value == question["refused"]:
            token = await slot.replace(token) or token
    except ProxyError as error:
        refused = error.code == "credential_rejected"
        return _failure(error.detail, refused=refused, wait=error.retry_after or _TRY_AGAIN)
    return {
        "value": token.value,
        "lines": token.lines.decode("latin-1"),
        "expires_at": token.expires_at,
    }


def _slot(key: Hashable, credentials: Iterable[Credential]) -> TokenSlot | None:
    slots = (credential.token_slot(key) for credential in credentials)
    return next((slot for slot in slots if slot is not None), None)


def _failure(detail: str, *, wait: float, refused: bool = False) -> dict[str, Any]:
    return {"failure": detail, "refused": refused, "wait": wait}


class Borrower:
    """Gets tokens from the supervisor (in a worker)."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self._channel = channel
        self._clock = clock
        self._loans: dict[Hashable, _Loan] = {}

    def fetch_for(self, key: Hashable) -> Fetch:
        """Return what fetches the tokens of a key; it remembers the last one."""
        return self._loans.setdefault(key, _Loan(key, self._channel, self._clock)).fetch


class _Loan:
    """The tokens of one key."""

    def __init__(self, key: Hashable, channel: Channel, clock: Clock) -> None:
        self._key = key
        self._channel = channel
        self._clock = clock
        self._last: str | None = None

    async def fetch(self, before: Token | None) -> Token:
        """Ask for a token; where the one before is none any more, it was refused."""
        refused = self._last if before is None else None
        try:
            answer = await self._channel.ask(QUESTION, {"key": self._key, "refused": refused})
        except ChannelClosedError:
            raise FetchError("This worker is stopping.", wait=_TRY_AGAIN) from None
        if "failure" in answer:
            raise FetchError(answer["failure"], refused=answer["refused"], wait=answer["wait"])
        self._last = answer["value"]
        now = self._clock.now()  # the same clock in all processes
        return Token(
            answer["value"],
            answer["lines"].encode("latin-1"),
            obtained_at=now,
            lifetime=answer["expires_at"] - now,
        )
