"""One JSON object a line, with what the contract names and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.accesslog import AccessLog
from proxy.observe import Event, Observers


def event(started: int = 1_700_000_000_042, **changes: Any) -> Event:
    made = Event(started, "GET", "127.0.0.1")
    usual: dict[str, Any] = {
        "request_id": "0a1b2c",
        "route": "eka",
        "path": "/dr/v1/patient/{patient_id}",
        "status": 200,
        "duration": 0.0123456,
        "upstream": 0.0023456,
        "bytes_in": 7,
        "bytes_out": 4096,
        "attempts": 1,
    }
    for name, value in (usual | changes).items():
        setattr(made, name, value)
    return made


def written(*events: Event) -> list[dict[str, Any]]:
    texts: list[str] = []
    log = AccessLog(texts.append)
    for event in events:
        log.exchanged(event)
    log.flush()
    return [json.loads(line) for line in "".join(texts).splitlines()]


def test_a_line_holds_exactly_what_is_promised() -> None:
    assert written(event()) == [
        {
            "ts": "2023-11-14T22:13:20.042Z",
            "request_id": "0a1b2c",
            "route": "eka",
            "method": "GET",
            "path": "/dr/v1/patient/{patient_id}",
            "status": 200,
            "code": None,
            "duration_ms": 12.346,
            "upstream_ms": 2.346,
            "bytes_in": 7,
            "bytes_out": 4096,
            "caller": "127.0.0.1",
            "identity": None,
            "attempts": 1,
        }
    ]


def test_an_error_of_ours_is_named_and_what_never_went_upstream_has_no_time_there() -> None:
    (line,) = written(event(code="no_route", upstream=None, status=404, attempts=0))
    assert (line["code"], line["upstream_ms"], line["attempts"]) == ("no_route", None, 0)


@pytest.mark.parametrize("path", ['/{}/"x', "/\\", "/\n{}", "/é", "/\udcff"])
def test_no_path_breaks_a_line(path: str) -> None:
    (line,) = written(event(path=path))
    assert line["path"] == path


def test_no_caller_makes_a_line_too_long_to_be_written_at_once() -> None:
    long = event(method="M" * 16_000, request_id="i" * 128, caller="c" * 64)
    (line,) = written(long)
    assert line["method"] == "M" * 64
    assert len(json.dumps(line)) < 1000  # some systems write 512 bytes at once, Linux 4096


def test_each_line_has_its_own_second_and_millisecond() -> None:
    times = (1_700_000_000_000, 1_700_000_000_999, 1_700_000_001_000, 1_699_999_999_999)
    lines = written(*(event(started=at) for at in times))
    assert [line["ts"][-10:] for line in lines] == [
        "13:20.000Z",
        "13:20.999Z",
        "13:21.000Z",
        "13:19.999Z",
    ]


def test_lines_are_gathered_and_none_waits_behind_a_full_batch() -> None:
    texts: list[str] = []
    log = AccessLog(texts.append)
    for _ in range(255):
        log.exchanged(event())
    assert texts == []
    log.exchanged(event())
    assert len(texts) == 1
    assert texts[0].count("\n") == 256
    log.flush()
    assert len(texts) == 1


def test_a_log_that_is_off_writes_announcements_alone() -> None:
    texts: list[str] = []
    log = AccessLog(texts.append, enabled=False)
    log.exchanged(event())
    log.fetched("eka", "login", "ok")
    log.announce({"event": "ready"})
    assert texts == ['{"event": "ready"}\n']


def test_an_announcement_comes_behind_the_lines_before_it() -> None:
    texts: list[str] = []
    log = AccessLog(texts.append)
    log.exchanged(event())
    log.announce({"event": "ready"})
    assert ["event" in json.loads(line) for line in "".join(texts).splitlines()] == [False, True]


def test_every_observer_hears_of_everything() -> None:
    heard: list[tuple[str, object]] = []

    class Listener:
        def exchanged(self, event: Event) -> None:
            heard.append(("exchanged", event))

        def fetched(self, credential: str, grant: str, outcome: str) -> None:
            heard.append(("fetched", (credential, grant, outcome)))

        def limited(self, limit: str) -> None:
            heard.append(("limited", limit))

    both = Observers([Listener(), Listener()])
    happened = event()
    both.exchanged(happened)
    both.fetched("eka", "login", "ok")
    both.limited("connections")
    once = ("exchanged", happened), ("fetched", ("eka", "login", "ok")), ("limited", "connections")
    assert heard == [each for each in once for _ in range(2)]
