"""`credential: none`: the caller's own credentials pass untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.credentials.base import Credential
from proxy.vendors import eka, eko

if TYPE_CHECKING:
    from proxy.addresses import Origin


class Passthrough(Credential):
    """Attaches nothing. An upstream of a known vendor still has its templates, for the logs."""

    kind = "none"
    owned = eka.GATEWAY_FIELDS

    def __init__(self, upstream: Origin) -> None:
        if eka.is_origin(upstream):
            self.catalogue = eka.CATALOGUE
        elif any(eko.is_origin(upstream, environment) for environment in eko.HOSTS):
            self.catalogue = eko.CATALOGUE

    def permits(self, origin: Origin, name: str | None) -> bool:  # noqa: ARG002
        return True  # there is nothing to lose
