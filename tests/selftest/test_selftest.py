"""`ekeko selftest`: all holds; with a defence taken out, that very case gives way."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from proxy import __version__
from proxy.cli import main
from proxy.clock import SystemClock
from proxy.selftest import ground, program, report, runner
from proxy.selftest.case import NotTriedError, case
from proxy.selftest.leaks import forms
from tests.processes import ROOT
from tests.test_threat_model import threats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.selftest.runner import Outcome

HOSTS = {"foreign-host", "host-suffix", "host-prefix", "empty-host", "host-userinfo", "host-list"}
HOSTS |= {"host-number", "host-mapped", "host-wildcard", "no-host", "admin-rebound"}
START = "import sys; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"


USELESS = {"empty", "html", "no-token", "not-utf8", "life-zero", "life-negative", "life-text"}
USELESS |= {"line-break", "not-ascii", "huge", "cut", "too-many", "refused"}


# Left out where another defence is taken out: each takes a second or so.
SLOW = {"staging-to-production", "token-to-storage", "plain-http", "like-the-vendor", "mistyped"}
SLOW |= {"expiry", "hang", "stampede", "pages", "slow-head", "slow-body", "slow-reader", "pipeline"}
SLOW |= {"silence", "stamps", "connections"}


def without(defence: str) -> Sequence[str]:
    """Start the program with a piece of it replaced."""
    return (sys.executable, "-P", "-c", f"{defence}\n{START}")


async def outcomes(names: Sequence[str], start: Sequence[str]) -> list[Outcome]:
    return await runner.attack(list(runner.chosen(names)), start)


def names(found: Sequence[Outcome], result: str) -> set[str]:
    return {each.case.name for each in found if each.result == result}


@pytest.mark.timeout(240)
async def test_all_holds() -> None:
    found = await outcomes([], program.COMMAND)
    assert [(each.case.name, each.seen) for each in found if each.result != "held"] == []
    assert len(found) > 150


# Each takes one defence out: what is replaced, the group to try, what then has to give way.
SABOTAGE = {
    "no Host is checked": (
        "from proxy.guard import Guard; Guard._check_host = lambda self, raw: None",
        "who",
        HOSTS,
    ),
    "browsers are welcome": (
        (
            "from proxy.guard import Guard\n"
            "def check(self, read): self._check_host(read.get('host', b''))\n"
            "Guard.check = check"
        ),
        "who",
        {"origin", "origin-null", "cross-site", "same-site", "form", "websocket", "preflight"}
        | {"admin-read", "admin-quit"},
    ),
    "the socket is for all": (
        "import os; os.umask = lambda mask: 0; os.chmod = lambda *_, **__: None",
        "who",
        {"socket-mode"},
    ),
    "paths are not judged": (
        "from proxy import target\ntarget._understood = lambda path: path",
        "where",
        {"encoded-slash", "dots", "encoded-dots", "dots-parameter", "encoded-parameter"}
        | {"twice-encoded", "backslash", "encoded-backslash", "encoded-nul", "encoded-break"}
        | {"bad-escape", "empty-segment", "overlong", "two-slashes", "fragment", "asterisk"}
        | {"absolute", "absolute-ours", "userinfo", "allow-passes"},
    ),
    "all is allowed": (
        "from proxy.route import Route; Route.allows = lambda self, method, path: True",
        "where",
        {"allow-method", "allow-path", "allow-encoded", "allow-case"},
    ),
    "a credential may go anywhere": (
        (
            "from proxy.credentials.base import CredentialSettings\n"
            "CredentialSettings.permits = lambda *_: True"
        ),
        "where",
        {"staging-to-production", "token-to-storage", "like-the-vendor"},
    ),
    "callers keep their copies": (
        (
            "from proxy.headers import RequestSorter\n"
            "before = RequestSorter.__init__\n"
            "RequestSorter.__init__ = lambda self, owned=(), *more, **options: "
            "before(self, (), *more, **options)"
        ),
        "smuggling",
        {"aliases", "eko-aliases"},
    ),
    "request ids are not checked": (
        "import re; from proxy import exchange; exchange._REQUEST_ID = re.compile(b'.*')",
        "smuggling",
        {"request-id"},
    ),
    "upstreams may speak as the proxy": (
        "from proxy import headers; headers._OURS = frozenset()",
        "vendors",
        {"voice"},
    ),
    "the log has real paths": (
        "from proxy.route import Route; Route.template = lambda self, target: target.path",
        "leaks",
        {"numbers"},
    ),
    "echoes are passed on": (
        (
            "from proxy import relay; relay.masked = lambda data, needles: data\n"
            "relay.Scrubber = lambda needles: None"
        ),
        "leaks",
        {"echo"},
    ),
    "any key will do": (
        "from proxy.identity import Keys; Keys.find = lambda self, given: 'app'",
        "who",
        {"keys"},
    ),
    "a token is logged": (
        (
            "import logging; from proxy.credentials.login import LoginClient\n"
            "before = LoginClient.post\n"
            "async def post(self, path, payload, headers):\n"
            "    got = await before(self, path, payload, headers)\n"
            "    logging.info('%s', got.body.hex())\n"
            "    return got\n"
            "LoginClient.post = post"
        ),
        "leaks",
        {"output"},
    ),
    "what is unsafe is sent again": (
        (
            "from proxy import send\n"
            "send.Sending._may_repeat = lambda self, connection, error: self.attempts < 2"
        ),
        "twice",
        {"post-once", "put-once", "patch-once", "delete-once", "payment-lost"},
    ),
    "a login is tried at each call": (
        (
            "from proxy.tokens import TokenSlot\n"
            "TokenSlot._back_off = lambda self, failure: setattr(self, '_failures', 1)"
        ),
        "logins",
        USELESS,
    ),
    "a life may have any length": (
        "from proxy.credentials import eka_login; eka_login._LIFETIME_AT_MOST = 1e15",
        "logins",
        {"life-huge"},
    ),
    "heads have all the time": (
        "from proxy.listener import Listener; Listener.sweep = lambda self, now: None",
        "load",
        {"slow-head"},
    ),
    "callers are not counted": (
        "from proxy.limits import Limits; Limits._turn_away = lambda self, limit: None",
        "load",
        {"connections"},
    ),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", SABOTAGE)
async def test_a_defence_that_is_taken_out_is_missed(what: str) -> None:
    defence, group, expected = SABOTAGE[what]
    tried = [
        (at, each)
        for at, each in runner.chosen([group])
        if each.name in expected or each.name not in SLOW
    ]
    found = await runner.attack(tried, without(defence))
    assert names(found, "gave way") == expected
    assert names(found, "not tried") == set()


async def test_a_proxy_that_serves_nobody_holds_off_nothing() -> None:
    """Each case needs an ordinary call to get through first."""
    sabotage = (
        "from proxy.errors import bad_request; from proxy.guard import Guard\n"
        "def check(self, read): raise bad_request('')\n"
        "Guard.check = check"
    )
    found = await outcomes(["who", "where"], without(sabotage))
    assert {each.result for each in found} == {"not tried"}


async def test_a_case_that_fails_by_itself_is_not_taken_for_one_that_held() -> None:
    @case("broken", "Nothing.", "nothing", threat=1)
    async def broken(_: ground.Ground) -> str:
        raise ZeroDivisionError

    (outcome,) = await runner.attack([("who", broken)], program.COMMAND)
    assert (outcome.result, outcome.seen) == ("not tried", "ZeroDivisionError")


def test_the_command_tells_what_gave_way_by_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["selftest", "--only", "who/foreign-host", "--only", "who/origin"]
    assert main(argv) == 0
    assert re.search(r"OpenSSL .*: 2 held, 0 gave way, 0 not tried\n\Z", capsys.readouterr().out)
    monkeypatch.setattr(program, "COMMAND", without(SABOTAGE["no Host is checked"][0]))
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert "gave way  who/foreign-host" in out
    assert "held      who/origin" in out
    monkeypatch.setattr(program, "COMMAND", (sys.executable, "-c", "print('so it ends')"))
    assert main(argv) == 1
    assert capsys.readouterr() == ("", "the program did not start: so it ends\n")


def test_the_evidence_tells_with_what_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--json", "--only", "who/foreign-host"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ekeko"] == __version__
    assert found["results"] == {"held": 1, "gave way": 0, "not tried": 0}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
    assert found["openssl"].startswith("OpenSSL")
    assert found["libraries"]["aiohttp"]
    (tried,) = found["cases"]
    assert set(tried) == {"case", "threat", "tried", "expected", "result", "seen"}


def test_it_tells_the_version_of_each_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {canonicalize_name(Requirement(e).name) for e in project["project"]["dependencies"]}
    assert asked <= {canonicalize_name(name) for name in report.LIBRARIES}


def test_a_library_that_is_not_here_has_no_version() -> None:
    assert report._version("no-such-library-4711") is None


def test_the_list_has_every_case_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--list"]) == 0
    listed = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [f"{group}/{each.name}" for group, each in runner.chosen()]
    assert len(set(listed)) == len(listed)


def test_a_name_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "who/nobody"]) == 2
    assert "who/nobody: expected a group or a case" in capsys.readouterr().err


def test_every_case_is_about_a_threat_that_is_written_down() -> None:
    numbers = {threat.number for threat in threats()}
    assert {each.threat for _, each in runner.chosen()} <= numbers


async def test_no_secret_is_in_what_it_tells() -> None:
    """Also not where the program leaks them."""
    cases = list(runner.chosen(["leaks/output", "leaks/pages", "smuggling/aliases"]))
    async with ground.Ground(without(SABOTAGE["a token is logged"][0])) as place:
        tried = [
            runner.Outcome(group, each, *await runner.tried(each, place)) for group, each in cases
        ]
    assert names(tried, "gave way") == {"output"}
    evidence = await asyncio.to_thread(report.evidence, tried, SystemClock())
    told = (report.table(tried) + evidence).encode()
    for secret in place.canaries.values():
        assert not [form for form in forms(secret) if form in told]


def test_where_tmp_cannot_be_written_another_place_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container whose root is read-only; its shared memory is not."""
    real = tempfile.TemporaryDirectory
    closed: set[str | None] = {None}

    def folder(**options: str | None) -> tempfile.TemporaryDirectory[str]:
        if options["dir"] in closed:
            raise FileNotFoundError
        return real(prefix=options["prefix"], dir=tmp_path)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", folder)
    with ground._temporary_folder() as name:
        assert Path(name).is_dir()
    closed.update(ground.PLACES)
    with pytest.raises(NotTriedError, match="no folder to write to"):
        ground._temporary_folder()
