"""The writer of the access log: nothing that stdout does reaches the event loop."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from proxy.process import StdoutWriter


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
