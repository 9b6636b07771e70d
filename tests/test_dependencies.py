"""What is locked is what is asked for, and every dependency has its reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import locks
from tests.locks import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUN: list[str] = PROJECT["project"]["dependencies"]
COMPILING: dict[str, Any] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
BUILD: list[str] = [*PROJECT["build-system"]["requires"], *COMPILING["dependencies"]]
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
LOCKS = {"requirements.lock": RUN, "requirements-build.lock": BUILD}

# Where the image may run, and where people install from the lock.
PLACES = [
    {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "platform_machine": machine,
        "sys_platform": system,
    }
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_one_version_with_hashes_and_no_address(name: str) -> None:
    for entry in locks.read(name):
        assert entry.version
        assert entry.hashes
        assert entry.pin.url is None


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("place", PLACES, ids=lambda at: " ".join(list(at.values())[3:]))
def test_everywhere_one_version_of_each_is_locked_within_its_bounds(
    name: str, place: dict[str, str]
) -> None:
    entries = [entry for entry in locks.read(name) if entry.is_for(place)]
    locked = {entry.name: entry.version for entry in entries}
    assert len(locked) == len(entries)
    for wanted in map(Requirement, LOCKS[name]):
        if wanted.marker is None or wanted.marker.evaluate(place):
            assert locked[canonicalize_name(wanted.name)] in wanted.specifier


@pytest.mark.parametrize("name", LOCKS)
def test_nothing_is_locked_that_nobody_needs(name: str) -> None:
    needed = names(LOCKS[name])
    entries = locks.read(name)
    while more := {each.name for each in entries if needed & set(each.askers)} - needed:
        needed |= more
    assert {entry.name for entry in entries} == needed


def test_every_dependency_has_its_reason_and_nothing_else_has_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    told = [canonicalize_name(each) for row in rows for each in row.split(", ") if row != "library"]
    assert len(told) == len(set(told))
    grouped = (each for group in GROUPS.values() for each in group)
    assert set(told) == names([*RUN, *BUILD, *grouped])


@pytest.mark.parametrize(
    ("report", "status", "expected", "said"),
    [
        ("", 0, 0, "no vulnerability is known"),
        ("Name Version ID\nyarl 1.0 X-1\n", 1, 1, "vulnerabilities are known"),
        ("", 1, 3, "NOT CHECKED"),
    ],
)
def test_an_audit_that_could_not_be_made_is_no_good_news(
    tmp_path: Path, report: str, status: int, expected: int, said: str
) -> None:
    """A stand-in for pip-audit, whose status is the same for a finding and for a failure."""
    tools = tmp_path / "venv-tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin" / "python").symlink_to(sys.executable)
    pyproject = (ROOT / "pyproject.toml").read_bytes()
    checksum = subprocess.run(["cksum"], input=pyproject, capture_output=True, check=True)
    (tools / ".set-up-tools").write_bytes(checksum.stdout)  # scripts/setup has nothing to do
    audit = tools / "bin" / "pip-audit"
    audit.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" --strict "*) ;; *) exit 9 ;; esac\n'
        'while [ "$1" != --output ]; do shift; done\n'
        f"[ -z '{report}' ] || printf '%s' '{report}' >\"$2\"\n"
        f"echo 'no such host' >&2; exit {status}\n"
    )
    audit.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts" / "audit"],
        env={**os.environ, "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected
    assert done.stdout == report
    assert said in done.stderr
    assert ("no such host" in done.stderr) == (expected == 3)
