"""`ekeko headers`: what would be attached, for use with curl."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = "d2fe1d99-6298-4af2-8cc5-d97dcf46df30"
AT = "1700000000000"
SIGNED = "qIir8tILHtqxO1Mu3/fC3pVElIa0oIxXMRDUP0463Bc="
HASHED = "TO65c2+vieXFx4+yDLN50NoAHe1fnfyWfIAB2NJkiNc="
FIELDS = ["utility_acc_no=151627591", "amount=50", "user_code=20810200"]


def run(tmp_path: Path, *args: str, user_code: bool = False) -> subprocess.CompletedProcess[str]:
    eko = {
        "kind": "eko",
        "environment": "staging",
        "developer_key": "dev-key",
        "access_key": KEY,
    }
    if user_code:
        eko["user_code"] = "20810200"
    config = {
        "routes": {
            "eko": {
                "listen": "127.0.0.1:0",
                "upstream": "https://staging.eko.in",
                "credential": "eko",
            }
        },
        "credentials": {
            "eko": eko,
            "static": {"kind": "bearer", "token": "the-token"},
            "gone": {"kind": "bearer", "token": "x"},
        },
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return subprocess.run(
        [sys.executable, "-m", "proxy", "headers", "-c", str(file), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_signature_for_a_fixed_time_is_the_known_answer(tmp_path: Path) -> None:
    done = run(tmp_path, "eko", "--at", AT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "developer_key: dev-key",
        f"secret-key: {SIGNED}",
        f"secret-key-timestamp: {AT}",
    ]


@pytest.mark.parametrize("user_code", [False, True])
def test_a_request_hash_over_given_fields_is_the_known_answer(
    tmp_path: Path, *, user_code: bool
) -> None:
    given = FIELDS[:2] if user_code else FIELDS
    arguments = [part for field in given for part in ("--field", field)]
    done = run(tmp_path, "eko", "--at", AT, *arguments, user_code=user_code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"request_hash: {HASHED}"
    assert f"secret-key: {SIGNED}" in done.stdout


def test_without_a_fixed_time_it_is_now(tmp_path: Path) -> None:
    stamps = {run(tmp_path, "eko").stdout.rpartition(": ")[2] for _ in range(2)}
    assert len(stamps) == 2
    assert all(len(stamp.strip()) == 13 for stamp in stamps)


def test_a_bearer_token_is_printed_as_it_is_sent(tmp_path: Path) -> None:
    done = run(tmp_path, "static")
    assert done.stdout == "Authorization: Bearer the-token\nauth: the-token\n"


def test_fields_that_no_rule_covers_are_told(tmp_path: Path) -> None:
    done = run(tmp_path, "eko", "--field", "colour=red")
    assert (done.returncode, done.stdout) == (2, "")
    assert "request_hash" in done.stderr


def test_a_credential_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    done = run(tmp_path, "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected eko, static, gone" in done.stderr
