"""The proxies: ekeko and its peers, and how each is started. One `Proxy` each, at the end."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import upstream
from benchmarks.processes import Failed, NotInstalled, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PEERS = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Job:
    """What a proxy is to do: attach these header lines, towards this upstream, over TLS or not."""

    folder: Path
    ca: Path
    upstream_port: int
    signing: upstream.Signing = "eka"
    scheme: str = "http"
    port: int = field(default_factory=free_port)

    @property
    def upstream_address(self) -> str:
        """The upstream as HOST:PORT."""
        return f"127.0.0.1:{self.upstream_port}"

    @property
    def values(self) -> dict[str, str]:
        """What peers go by: `@NAME@` in their configuration, or their environment."""
        return {
            "PORT": str(self.port),
            "SIGNING": self.signing,
            "SCHEME": self.scheme,
            "UPSTREAM_ADDRESS": self.upstream_address,
            "CA": str(self.ca),
            "TOKEN": upstream.TOKEN,
            "DEVELOPER_KEY": upstream.DEVELOPER_KEY,
            "HMAC_KEY": upstream.HMAC_KEY,
            "HMAC_KEY_BASE64": base64.b64encode(upstream.HMAC_KEY.encode()).decode(),
        }

    def configuration(self, template: str) -> str:
        """Fill a configuration of peers/ and return where it lies."""
        target = self.folder / template
        upstream.fill(PEERS / template, target, self.values)
        return str(target)


@dataclass(frozen=True)
class Proxy:
    """A proxy. `words` is its command line, and raises NotInstalled."""

    name: str
    what: str
    words: Callable[[Job], list[str]]
    version: str = ""  # the command that tells it
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, job: Job, cpus: set[int]) -> Process:
        """Start it without waiting; it will listen on `job.port`."""
        homes = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(job.folder))
        environment = {**job.values, **homes, **self.environment}
        return Process(self.words(job), cpus=cpus, log=job.folder / "log", environment=environment)

    def tell_version(self) -> str:
        """Return the first line that its program says about its version, or nothing."""
        words = self.version.split()
        if not words or (program := shutil.which(words[0])) is None:
            return ""
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)  # noqa: S603
        return (done.stdout + done.stderr).strip().partition("\n")[0]


Configuration = dict[str, Any]


def ekeko(change: Callable[[Job, Configuration], None] | None = None, name: str = "ekeko") -> Proxy:
    """Return ekeko from this checkout; `change` alters its usual configuration."""

    def words(job: Job) -> list[str]:
        configuration = _configuration(job)
        if change is not None:
            change(job, configuration)
        file = job.folder / "config.yaml"
        file.write_text(json.dumps(configuration, indent=1), encoding="utf-8")  # JSON is YAML
        return [sys.executable, "-m", "proxy", "run", "-c", str(file)]

    return Proxy(
        name, "this project: its policy, access log (to a file) and metrics at work", words
    )


def _configuration(job: Job) -> Configuration:
    origin = f"{job.scheme}://{job.upstream_address}"
    credential: Configuration = {"kind": "bearer", "token": upstream.TOKEN, "origins": [origin]}
    if job.signing == "eko":
        credential = {
            "kind": "eko",
            "environment": "staging",
            "developer_key": upstream.DEVELOPER_KEY,
            "access_key": upstream.ACCESS_KEY,
            "timestamps": "clock",
            "origins": [origin],
        }
    route: Configuration = {
        "listen": f"127.0.0.1:{job.port}",
        "upstream": origin,
        "credential": "benchmark",
    }
    if job.scheme == "https":
        route["tls"] = {"ca": str(job.ca)}
    return {
        "routes": {"benchmark": route},
        "credentials": {"benchmark": credential},
        "admin": {"listen": "127.0.0.1:0"},
        "limits": {"connections": 20_000},
    }


def _program(name: str, package: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise NotInstalled(f"install {package}")
    return program


@functools.cache
def _build_go(folder: Path) -> Path:
    """Build the Go proxy, once for a run."""
    target = folder / "reverse_proxy"
    words = [_program("go", "golang-go"), "build", "-o", str(target), "reverse_proxy.go"]
    environment = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    try:
        subprocess.run(words, cwd=PEERS, env=environment, check=True, capture_output=True)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise Failed(f"it does not build: {error.stderr.decode().strip()}") from error
    return target


def _go(job: Job) -> list[str]:
    return [str(_build_go(job.ca.parent))]


def _haproxy(job: Job) -> list[str]:
    return [_program("haproxy", "haproxy"), "-db", "-f", job.configuration("haproxy.cfg")]


def _nginx(job: Job) -> list[str]:
    program = _program("nginx", "nginx")
    return [program, "-p", str(job.folder), "-c", job.configuration("nginx.conf")]


def _caddy(job: Job) -> list[str]:
    program = _program("caddy", "caddy")
    return [program, "run", "--adapter", "caddyfile", "--config", job.configuration("Caddyfile")]


def _mitmproxy(job: Job) -> list[str]:
    program = _program(
        os.environ.get("MITMDUMP", "mitmdump"),
        "mitmproxy (by pip, in an environment of its own; MITMDUMP is the path to its mitmdump)",
    )
    options = f"--mode reverse:{job.scheme}://{job.upstream_address} --listen-host 127.0.0.1 -q"
    options += f" --listen-port {job.port} --set confdir={job.folder} --set flow_detail=0"
    return [program, *options.split(), "-s", str(PEERS / "mitmproxy_addon.py")]


def _usual(job: Job) -> list[str]:
    del job
    return [sys.executable, str(PEERS / "aiohttp_proxy.py")]


EKEKO = ekeko()
GO = Proxy("Go", "httputil.ReverseProxy with a Director and a large Transport", _go, "go version")
GO_POOLED = Proxy(
    "Go, pooled", "the same, given a BufferPool", _go, environment={"BUFFER_POOL": "1"}
)
HAPROXY = Proxy("HAProxy", "one thread, http-reuse always", _haproxy, "haproxy -v")
NGINX = Proxy("nginx", "one worker, kept-alive upstream connections", _nginx, "nginx -v")
CADDY = Proxy("Caddy", "reverse_proxy", _caddy, "caddy version")
MITMPROXY = Proxy("mitmproxy", "mitmdump in reverse mode with an addon", _mitmproxy)
USUAL = Proxy(
    "usual aiohttp", "web.Application and a ClientSession, as everybody writes it", _usual
)
ALL = (EKEKO, GO, GO_POOLED, HAPROXY, NGINX, CADDY, MITMPROXY, USUAL)
