"""The frame of the command line: exit statuses, and where things are printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__, config
from proxy.cli import COMMANDS, main
from tests import certificates

UNSET = "the environment variable CANARY_TOKEN is not set"
ROOT = Path(__file__).parents[2]
GOOD = "routes: {a: {listen: '127.0.0.1:1', upstream: 'https://x.example', credential: none}}"
BAD = "routes: {}\nlog: {level: canary-level}\ncredentials: {e: {kind: bearer, token: 8361520947}}"
NOTED = f"{GOOD}\ncredentials: {{e: {{kind: bearer, token: {{env: CANARY_TOKEN}}}}}}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EKEKO_CONFIG", raising=False)
    return tmp_path


def test_version_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr() == (f"ekeko {__version__}\n", "")


def test_schema_is_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == config.schema()
    assert err == ""


@pytest.mark.parametrize("argv", [[], ["bogus"], ["check", "--bogus"], ["version", "x"]])
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: ekeko")


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_status_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("usage: ekeko")


def test_python_m_is_the_same_command() -> None:
    program = "import sys; sys.argv = ['ekeko', 'version']; import runpy\n"
    program += "try: runpy.run_module('proxy', run_name='__main__')\n"
    program += "except SystemExit as stop: print(stop.code, 'aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ekeko {__version__}\n0 False\n"


def test_what_aiohttp_makes_as_it_is_imported_trusts_nobody_and_ours_the_authorities(
    folder: Path,
) -> None:
    authority = certificates.found_in(folder).ca
    program = (
        "import os, ssl, proxy.cli, proxy.tls\n"
        "proxy.cli.main(['check', '-c', '/nowhere'])\n"
        "import aiohttp.connector\n"
        "from proxy.model import Tls\n"
        "theirs, ours = aiohttp.connector._SSL_CONTEXT_VERIFIED, proxy.tls.context(Tls())\n"
        "print(os.environ['SSL_CERT_FILE'], 'SSL_CERT_DIR' in os.environ)\n"
        "print(theirs.cert_store_stats()['x509'], ours.cert_store_stats()['x509'])"
    )
    environment = {**os.environ, "SSL_CERT_FILE": authority}
    environment.pop("SSL_CERT_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{authority} False\n0 1\n"


def test_a_good_file_is_summed_up_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.yaml").write_text(GOOD)
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("", "config.yaml: 1 route, 0 credentials, no mistakes\n")


def test_the_file_is_named_by_option_or_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.yaml").write_text(GOOD)
    monkeypatch.setenv("EKEKO_CONFIG", "a.yaml")
    assert main(["check"]) == 0
    assert capsys.readouterr().err.startswith("a.yaml: ")
    assert main(["check", "-c", "b.yaml"]) == 2
    assert capsys.readouterr().err.startswith("b.yaml:1:1: there is no such file")


def test_mistakes_are_status_2_and_show_no_value(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.yaml").write_text(BAD)
    assert main(["check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["config.yaml:1:9", "routes"],
        ["config.yaml:2:14", "log.level"],
        ["config.yaml:3:40", "credentials.e.token"],
    ]
    assert "canary" not in err
    assert "8361520947" not in err


def test_notes_do_not_fail_a_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text(NOTED)
    assert main(["check"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "note: config.yaml:2:15: credentials.e: is used by no route",
        f"note: config.yaml:2:40: credentials.e.token: {UNSET}",
        "config.yaml: 1 route, 1 credential, no mistakes",
    ]


@pytest.mark.parametrize(
    ("text", "status", "severities"),
    [(GOOD, 0, []), (NOTED, 0, ["note"] * 2), (BAD, 2, ["error"] * 3)],
)
def test_tools_get_a_list_on_stdout(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    status: int,
    severities: list[str],
) -> None:
    (folder / "config.yaml").write_text(text)
    assert main(["check", "--json"]) == status
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [item["severity"] for item in found] == severities
    for item in found:
        assert list(item) == ["severity", "file", "line", "column", "key", "message"]
    assert "canary-" not in out
    assert "8361520947" not in out
