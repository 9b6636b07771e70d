"""Secrets that are files: read again when they change."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxy.config.access import found, key_flaws
from proxy.secrets import SecretError

if TYPE_CHECKING:
    from proxy.config.settings import Settings
    from proxy.secrets import Secret

logger = logging.getLogger(__name__)

SECRETS_EVERY = 2.0  # seconds between looks at secret files

Values = dict[tuple[str, ...], str]  # of secrets, by key path


class SecretFiles:
    """Looks whether the files of secrets have changed."""

    def __init__(self) -> None:
        self._unreadable: set[tuple[str, ...]] = set()
        self._refused: Values = {}

    async def changed(self, settings: Settings) -> Values:
        """Read them again, and return what is new; what cannot be used keeps its old value.

        Nobody may see a value that is refused, a worker that starts afterwards least of all.
        """
        new: Values = {}
        before: dict[tuple[str, ...], tuple[Secret, str]] = {}
        for path, secret in settings.secrets():
            try:
                before[path] = secret, secret.reveal()
                if await asyncio.to_thread(secret.reload):
                    new[path] = secret.reveal()
                self._unreadable.discard(path)
            except SecretError as error:
                if path not in self._unreadable:
                    logger.warning("%s: %s; the old value stays", ".".join(path), error)
                self._unreadable.add(path)
        refused: Values = {}
        # Without one of the new values another may be wrong: it may equal what stays.
        while wrong := [flaw for flaw in key_flaws(settings, found) if flaw[0] in new]:
            for path, what in wrong:
                secret, old = before[path]
                secret.renew(old)
                refused[path] = new.pop(path)
                if self._refused.get(path) != refused[path]:
                    logger.warning("%s %s; the old value stays", ".".join(path), what)
        self._refused = refused
        for path in new:
            logger.info("%s was read again", ".".join(path))
        return new
