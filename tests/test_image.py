"""The Dockerfile, built and run without a Docker engine: `scripts/test -m image`, two minutes.

Needs root, buildah and debootstrap. The build uses this machine's pip configuration.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from packaging.utils import canonicalize_name

from proxy import __version__
from proxy.sandbox import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET, StandIns
from tests import locks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[1]
BASE = "localhost/ekeko-base"
IMAGE = "localhost/ekeko:under-test"
USER = 10001
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# No daemon, and no kernel feature that a container may lack. The host's network is shared.
ENVIRONMENT = {"STORAGE_DRIVER": "vfs", **os.environ, "BUILDAH_ISOLATION": "chroot"}
_PATIENCE = 60  # seconds


def buildah(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["buildah", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def pip_configuration() -> dict[str, dict[str, str]]:
    """Return what pip is configured to do here, variables included, by section."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    sections: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        section = section.replace(":env:", "global")
        sections.setdefault(section, {})[key] = ast.literal_eval(value)
    return sections


def volumes(folder: Path) -> list[str]:
    """Make that configuration, and every path it names, visible to the build."""
    found = pip_configuration()
    paths = {AUTHORITIES} if AUTHORITIES.is_file() else set()
    for word in " ".join(value for each in found.values() for value in each.values()).split():
        path = Path(word.removeprefix("file://"))
        # An index in files has links to what lies beside it.
        paths.add(path.parent if path.name == "simple" else path)
    shared = [path for path in sorted(paths) if path.is_absolute() and path.exists()]
    file = folder / "pip.conf"
    parser = configparser.RawConfigParser()
    parser.read_dict(found)
    with file.open("w") as stream:
        parser.write(stream)
    mounts = [(file, Path("/etc/pip.conf")), *((path, path) for path in _outermost(shared))]
    return [f"--volume={source}:{target}:ro" for source, target in mounts]


def _outermost(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not set(path.parents) & set(paths)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Build the image; yields its configuration."""
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("building without an engine needs root")
    based = subprocess.run(
        [ROOT / "scripts" / "image-base"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert based.returncode == 0, based.stdout + based.stderr
    # OCI's own format has no HEALTHCHECK.
    build = ["build", "--format=docker", "--tag", IMAGE]
    compiler = "COMPILER=gcc libc6-dev python3-dev"  # Debian has the headers in a package
    build += ["--build-arg", f"BASE={BASE}", "--build-arg", compiler]
    buildah(*build, *volumes(tmp_path_factory.mktemp("image")), ".")
    try:
        inspected = json.loads(buildah("inspect", "--type=image", IMAGE).stdout)
        yield inspected["Docker"]["config"]
    finally:
        buildah("rmi", IMAGE)


@pytest.fixture(scope="module")
def container(image: dict[str, Any]) -> Iterator[str]:
    """Make a container of the image, to run commands in."""
    assert image
    name = buildah("from", "--pull-never", IMAGE).stdout.strip()
    try:
        yield name
    finally:
        buildah("rm", name)


def test_its_configuration(image: dict[str, Any]) -> None:
    assert image["Entrypoint"] == ["ekeko"]
    assert image["Cmd"] == ["run", "-c", "/etc/ekeko/config.yaml"]
    assert image["User"] == f"{USER}:{USER}"
    assert image["Healthcheck"]["Test"][:3] == ["CMD", "python", "-c"]


def test_version(container: str) -> None:
    assert buildah("run", container, "--", "ekeko", "version").stdout == f"ekeko {__version__}\n"


def test_it_has_what_is_locked_and_nothing_else(container: str) -> None:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({each.name: each.version for each in m.distributions()}))"
    )
    found = json.loads(buildah("run", container, "--", "python", "-c", script).stdout)
    assert found.pop("ekeko") == __version__
    # All that is locked is for Linux: no marker says otherwise.
    locked = {entry.name: entry.version for entry in locks.read("requirements.lock")}
    assert {canonicalize_name(name): version for name, version in found.items()} == locked


def test_the_example_passes_a_check(container: str) -> None:
    mount = f"--volume={ROOT / 'config.example.yaml'}:/tmp/config.example.yaml:ro"
    command = ["ekeko", "check", "-c", "/tmp/config.example.yaml"]  # noqa: S108 - in the container
    assert "no mistakes" in buildah("run", mount, container, "--", *command).stderr


def test_it_runs_as_nobody_and_can_change_nothing(container: str) -> None:
    script = "id -u; find /opt/ekeko /etc/ekeko -writable ! -type l 2>/dev/null"
    assert buildah("run", container, "--", "sh", "-c", script, check=False).stdout == f"{USER}\n"


def test_the_self_test_holds_there(container: str) -> None:
    done = buildah("run", container, "--", "ekeko", "selftest", check=False)
    assert done.stdout.endswith(" held, 0 gave way, 0 not tried\n"), done.stdout + done.stderr
    assert done.returncode == 0


def test_what_every_request_passes_is_compiled(container: str) -> None:
    script = "from proxy import exchange; print(exchange.__file__)"
    assert buildah("run", container, "--", "python", "-c", script).stdout.endswith(".so\n")


def test_no_tool_of_the_build_is_left(container: str) -> None:
    script = "command -v cc gcc ld; ls -d /src /tmp/tools /root/.cache; ls /opt/ekeko/bin"
    left = buildah("run", container, "--", "sh", "-c", script, check=False).stdout.split()
    assert "ekeko" in left
    assert not [name for name in left if name.startswith(("/", "pip"))]


@asynccontextmanager
async def running(container: str, command: list[str], folder: Path) -> AsyncIterator[Any]:
    """Run a command with a configuration folder; yields its ready line, and sees it exit 0."""
    mount = f"--volume={folder}:/etc/ekeko:ro"
    process = await asyncio.create_subprocess_exec(
        *("buildah", "run", mount, container, "--", *command),
        env=ENVIRONMENT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), _PATIENCE))
        await asyncio.wait_for(process.communicate(), _PATIENCE)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


def write_configuration(folder: Path, stand_ins: StandIns) -> None:
    """Write it where another user can read it."""
    folder.chmod(0o755)
    (folder / "secret").write_text(f"{SANDBOX_CLIENT_SECRET}\n")
    raw = {
        "routes": {
            "eka": {"listen": "127.0.0.1:0", "upstream": stand_ins.eka_url, "credential": "eka"}
        },
        "credentials": {
            "eka": {
                "kind": "eka",
                "client_id": SANDBOX_CLIENT_ID,
                "client_secret": {"file": "/etc/ekeko/secret"},
                "login_url": stand_ins.eka_url,
                "origins": [stand_ins.eka_url],
            }
        },
        "admin": {"listen": "127.0.0.1:0"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))


async def test_its_own_command_serves_and_is_healthy(
    image: dict[str, Any], container: str, tmp_path: Path
) -> None:
    async with StandIns() as stand_ins, aiohttp.ClientSession() as http:
        write_configuration(tmp_path, stand_ins)
        command = [*image["Entrypoint"], *image["Cmd"]]
        async with running(container, command, tmp_path) as ready:
            async with http.get(f"{ready['listeners']['eka']}/dr/v1/patient/p-1") as answer:
                assert (await answer.json())["patient_id"] == "p-1"
            health = image["Healthcheck"]["Test"][1:]
            moved = [word.replace("http://127.0.0.1:8190", ready["admin"]) for word in health]
            assert moved != health
            await asyncio.to_thread(buildah, "run", container, "--", *moved)
            async with http.post(f"{ready['admin']}/quit") as answer:
                assert answer.status == 202
            assert stand_ins.eka.logins == 1
        unhealthy = await asyncio.to_thread(buildah, "run", container, "--", *moved, check=False)
        assert unhealthy.returncode == 1
