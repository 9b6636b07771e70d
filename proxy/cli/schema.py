"""`ekeko schema`: the configuration's JSON Schema, for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from proxy import config

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: there is one schema."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Print it to stdout."""
    print(json.dumps(config.schema(), indent=2))
    return 0
