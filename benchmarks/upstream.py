"""What answers behind the proxies, and what it wants to see of them."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import re
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.processes import Failed, Process, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

Signing = Literal["eka", "eko"]

TOKEN = "aaaa.bbbb.cccc"  # noqa: S105 - opens nothing
DEVELOPER_KEY = "benchmark-developer-key"
ACCESS_KEY = "benchmark-access-key"
HMAC_KEY = base64.b64encode(ACCESS_KEY.encode()).decode()  # what Eko signs with: the text
BODY = json.dumps({"patient_id": "1", "filler": "x" * 267})  # 300 bytes
PATHS: dict[Signing, str] = {
    "eka": "/dr/v1/patient/1",
    "eko": "/ekoapi/v3/customer/payment/bbps/categories",
}
_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=any"
    " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out ca.pem"
)


@dataclass(frozen=True)
class Upstream:
    """Where the upstream answers: small answers plain or over TLS; streams; whom TLS trusts."""

    port: int
    tls_port: int
    bulk_port: int
    ca: Path

    def served(self) -> int:
        """Count the requests that the small answers' server has answered so far."""
        _, text = get(self.port, "/status")
        return int(text.splitlines()[2].split()[2])


def start(stack: ExitStack, folder: Path, cpus: set[int]) -> Upstream:
    """Start nginx for small answers and bulk.py for streams."""
    folder.mkdir()
    subprocess.run(_CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)  # noqa: S603
    upstream = Upstream(free_port(), free_port(), free_port(), folder / "ca.pem")
    values = {
        "PORT": str(upstream.port),
        "TLS_PORT": str(upstream.tls_port),
        "CA": str(upstream.ca),
        "KEY": str(folder / "key.pem"),
        "TOKEN": TOKEN,
        "DEVELOPER_KEY": DEVELOPER_KEY,
        "BODY": BODY,
    }
    conf = folder / "nginx.conf"
    fill(Path(__file__).with_name("upstream.conf"), conf, values)
    programs = {
        upstream.port: ["nginx", "-p", str(folder), "-c", str(conf)],
        upstream.bulk_port: [sys.executable, "-m", "benchmarks.bulk", str(upstream.bulk_port)],
    }
    for port, words in programs.items():
        process = Process(words, cpus=cpus, log=folder / "log")
        stack.callback(process.stop)
        wait_for_port(port, process)
    return upstream


def fill(template: Path, target: Path, values: dict[str, str]) -> None:
    """Write a configuration: `@NAME@` stands for a value."""
    text = template.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    target.write_text(text, encoding="utf-8")


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body of one GET on a connection of its own."""
    with closing(_connect(port)) as connection:
        return _get(connection, path)


def visit_workspaces(port: int, count: int) -> None:
    """Make a call in each of the workspaces w1 … wCOUNT; Failed unless it is answered well."""
    with closing(_connect(port)) as connection:
        for number in range(1, count + 1):
            status, _ = _get(connection, PATHS["eka"], {"X-Eka-Workspace": f"w{number}"})
            if status != HTTPStatus.OK:
                raise Failed(f"workspace w{number} was answered with {status}")


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def _get(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"no answer to GET {path}: {error!r}") from error


def verify(port: int, signing: Signing) -> None:
    """Failed unless this proxy passes answers on whole and attaches what it should, correctly."""
    status, body = get(port, PATHS[signing])
    if (status, body) != (200, BODY):
        raise Failed(f"the answer is {status} with {len(body)} bytes")
    spaced = json.loads(get(port, "/echo")[1])
    seen = {name: value.replace(" ", "") for name, value in spaced.items()}
    if signing == "eka":
        token = seen["auth"]
        known = token == TOKEN or re.fullmatch("[0-9a-f]{32}", token)  # which the login gives
        wrong = not known or seen["authorization"] != f"Bearer{token}"
    else:
        stamp = seen["secret-key-timestamp"]
        signature = base64.b64encode(hmac.digest(HMAC_KEY.encode(), stamp.encode(), "sha256"))
        wrong = (
            seen["developer_key"] != DEVELOPER_KEY
            or seen["secret-key"] != signature.decode()
            or abs(time.time() * 1000 - int(stamp)) > 60_000  # noqa: PLR2004 - a minute
        )
    if wrong:
        raise Failed("it attached wrong header lines")
