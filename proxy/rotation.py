"""Secrets that are files: read again when they change."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxy.secrets import SecretError

if TYPE_CHECKING:
    from proxy.model import Model

logger = logging.getLogger(__name__)

SECRETS_EVERY = 2.0  # seconds between looks at secret files

Values = dict[tuple[str, ...], str]  # of secrets, by key path


class SecretFiles:
    """Looks whether the files of secrets have changed."""

    def __init__(self) -> None:
        self._unreadable: set[tuple[str, ...]] = set()

    async def changed(self, settings: Model) -> Values:
        """Read them again, and return what is new; what cannot be read keeps its old value."""
        new: Values = {}
        for path, secret in settings.secrets():
            try:
                if await asyncio.to_thread(secret.reload):
                    new[path] = secret.reveal()
                    logger.info("%s was read again", ".".join(path))
                self._unreadable.discard(path)
            except SecretError as error:
                if path not in self._unreadable:
                    logger.warning("%s: %s; the old value stays", ".".join(path), error)
                self._unreadable.add(path)
        return new
