"""What several commands share: arguments, and how mistakes are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from proxy.config import ConfigError


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `-c FILE`, as `args.config`."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(os.environ.get("EKEKO_CONFIG") or "config.yaml"),
        help="the configuration (default: $EKEKO_CONFIG, else ./config.yaml)",
    )


def print_mistakes(error: ConfigError) -> None:
    """Print every mistake of a configuration, a line each."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
