"""Memory that a supervisor and its workers share: one cell for each worker's highest stamp.

It outlives a worker that is killed, so its successor repeats none of its stamps. A worker writes
to its own cell alone, eight bytes at once, so nobody waits for anybody.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

_CELL: Final = 8  # bytes


def make(cells: int) -> int:
    """Return the descriptor of memory for so many cells, all zero."""
    try:
        descriptor = os.memfd_create("ekeko")
    except (AttributeError, OSError):  # only Linux has it
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, cells * _CELL)
    return descriptor


def cell(descriptor: int, index: int) -> memoryview:
    """Return one cell (`q`)."""
    memory = mmap.mmap(descriptor, 0)
    return memoryview(memory).cast("q")[index : index + 1]
