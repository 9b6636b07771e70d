"""A configuration file: YAML in, frozen settings out, or every mistake at once.

Reading needs no environment: `load` takes secrets as written, `resolve` gets their values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from proxy.addresses import is_proxy_url
from proxy.config import access, document
from proxy.config.checks import check
from proxy.config.notes import notes
from proxy.config.problem import ConfigError, Problem
from proxy.config.salvage import salvage
from proxy.config.schema import schema
from proxy.config.settings import Settings
from proxy.config.translate import translate
from proxy.secrets import SecretError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ConfigError", "Problem", "Settings", "load", "notes", "read", "resolve", "schema"]


def load(path: Path) -> Settings:
    """Read a configuration; ConfigError with all its mistakes."""
    read = document.read(path)
    settings, wrong = _validate(read)
    names = read.data.get("credentials")
    names = list(names) if isinstance(names, dict) else []
    problems = [*read.problems, *wrong, *check(settings, names, read.places)]
    if problems:
        raise ConfigError(problems)
    return settings.placed(read.places)


def _validate(read: document.Document) -> tuple[Settings, list[Problem]]:
    try:
        return Settings.model_validate(read.data), []
    except ValidationError as error:
        errors = error.errors(include_input=False)
    # Outside of `except`: pydantic's error may quote the file, and is to be nobody's context.
    return salvage(read.data), translate(errors, read)


def resolve(settings: Settings) -> None:
    """Get the value of every secret (blocking); ConfigError names each that there is not."""
    problems = list(_unresolved(settings))
    if problems:
        raise ConfigError(problems)


def read(path: Path) -> Settings:
    """Read a configuration that is to be used here and now, secrets and all; ConfigError."""
    settings = load(path)
    resolve(settings)
    return settings


def _unresolved(settings: Settings) -> Iterator[Problem]:
    for path, secret in settings.secrets():
        try:
            value = secret.reveal()
        except SecretError as error:
            yield settings.places.at_value(path, f"{error}: expected a secret there")
            continue
        if path[-1] == "via" and not is_proxy_url(value):
            message = "is not a proxy's URL: expected http://[USER:PASSWORD@]HOST:PORT"
            yield settings.places.at_value(path, message)
    for key, wrong in access.key_flaws(settings, access.found):
        yield settings.places.at_value(key, wrong)
