"""Eka Care: its origins, its documented operations, the names of its header fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxy.routing import loosely
from proxy.vendors.catalogue import Catalogue, rows

if TYPE_CHECKING:
    from proxy.addresses import Origin

NAME: Final = "Eka"
ORIGINS: Final = "https://*.eka.care"
LOGIN: Final = "/connect-auth/v1/account/login"
REFRESH: Final = "/connect-auth/v1/account/refresh-token"
REFRESH_V1: Final = "/connect-auth/v1/account/refresh"
# As `routing.loosely` has them.
TOKEN_PATHS: Final = frozenset(tuple(loosely(path)) for path in (LOGIN, REFRESH, REFRESH_V1))
# `jwt-payload` is an identity header internal to Eka's gateway: no caller's copy may pass.
GATEWAY_FIELDS: Final = frozenset({"jwt-payload"})
TOKEN_FIELDS: Final = frozenset({"authorization", "auth"}) | GATEWAY_FIELDS


def is_origin(origin: Origin) -> bool:
    """Tell whether this is an API host of Eka's, over TLS."""
    return origin.scheme == "https" and origin.host.endswith(".eka.care")


def is_production(origin: Origin) -> bool:
    """Tell whether one of Eka's origins is for production: others have tokens of their own."""
    return not set(re.split(r"[.-]", origin.host)) & {"dev", "staging"}


# Eka's documented operations.
CATALOGUE: Final = Catalogue(row["path"] for row in rows("eka"))
