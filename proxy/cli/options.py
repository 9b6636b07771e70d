"""Arguments that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


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
