"""`ekeko version`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import __version__

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare nothing."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Print it to stdout."""
    print(f"ekeko {__version__}")
    return 0
