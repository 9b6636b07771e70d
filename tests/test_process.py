"""The writer of the access log: nothing that stdout does reaches the event loop. And memory."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import process
from proxy.cli import main
from proxy.process import StdoutWriter, keep_memory_private, pieces
from proxy.workers import worker
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


class Stalled(io.StringIO):
    """A stdout that nobody reads until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return super().write(text)


def test_a_stalled_reader_stalls_nobody_and_the_lost_lines_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stdout = Stalled()
    monkeypatch.setattr(sys, "stdout", stdout)
    writer = StdoutWriter(blocks_at_most=2)
    for number in range(20):
        writer.write(f"{number}\n{number}\n")  # comes back at once, whatever stdout does
    stdout.go.set()
    while writer._blocks.qsize():
        threading.Event().wait(0.001)
    with caplog.at_level(logging.WARNING):
        writer.write("last\n")
    writer.close()
    written = stdout.getvalue().splitlines()
    assert written[0] == "0"
    assert written[-1] == "last"
    lost = 40 - (len(written) - 1)
    assert lost >= 34
    assert f"{lost} lines of the access log were dropped" in caplog.text


def test_what_was_written_before_the_end_is_out_when_it_has_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    writer = StdoutWriter()
    for number in range(100):
        writer.write(f"{number}\n")
    writer.close()
    assert stdout.getvalue().split() == [str(number) for number in range(100)]


@pytest.mark.parametrize("failure", [BrokenPipeError(), OSError(28, "No space left")])
def test_a_stdout_that_fails_takes_nothing_with_it(
    failure: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.StringIO):
        def write(self, _: str) -> int:
            raise failure

    monkeypatch.setattr(sys, "stdout", Failing())
    writer = StdoutWriter()
    writer.write("a\n")
    writer.write("b\n")
    writer.close()
    assert not writer._thread.is_alive()


# Beside other processes that write.


@given(sizes=st.lists(st.integers(0, 30)), at_most=st.integers(1, 40))
def test_pieces_are_whole_lines_and_small_unless_one_line_is_large(
    sizes: list[int], at_most: int
) -> None:
    lines = "".join("x" * size + "\n" for size in sizes)
    cut = list(pieces(lines, at_most))
    assert "".join(cut) == lines
    for piece in cut:
        assert piece.endswith("\n")
        assert len(piece) <= at_most or piece.count("\n") == 1
    for one, other in pairwise(cut):
        assert len(one) + len(other.split("\n")[0]) + 1 > at_most  # no more of them than need be


def test_so_much_is_written_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stdout(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Stdout())
    writer = StdoutWriter(at_most=10)
    writer.write("one\ntwo\nthree\nfour\n")
    writer.close()
    assert written == ["one\ntwo\n", "three\n", "four\n"]


async def test_a_writer_that_is_held_begins_when_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    writer = StdoutWriter(held=True)
    writer.write("a line\n")
    written = asyncio.create_task(writer.written())
    done, _ = await asyncio.wait([written], timeout=0.01)
    assert not done
    assert stdout.getvalue() == ""
    writer.release()
    await written
    assert stdout.getvalue() == "a line\n"
    await asyncio.to_thread(writer.close)


def test_memory_is_kept_from_cores_and_debuggers() -> None:
    program = (
        "import ctypes, resource\n"
        "from proxy import process\n"
        "dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "assert dumpable() == 1\n"
        "process.keep_memory_private()\n"
        "print(dumpable(), resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 (0, 0)\n"


@pytest.mark.parametrize(
    "begin", [lambda: main(["run"]), lambda: main(["headers", "eka"]), worker.main]
)
def test_whoever_reads_secrets_hides_its_memory_first(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[], int]
) -> None:
    class Hidden(Exception):  # noqa: N818 - it is what the test expects, not a mistake
        pass

    def hide() -> None:
        raise Hidden

    monkeypatch.setattr(process, "keep_memory_private", hide)
    with pytest.raises(Hidden):
        begin()


def test_memory_that_cannot_be_hidden_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)  # its import fails
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    keep_memory_private()
