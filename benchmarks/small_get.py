"""CPU time of the proxy's process for one small GET: Eka bearer, access log and metrics on.

nginx answers 300 bytes of JSON; wrk keeps 32 connections busy; the figure is the processor time
of the proxy's process (user and system, /proc/PID/stat) over the requests it served. Run it by
`scripts/bench`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

HERE = Path(__file__).parent
RUNS = 5
SECONDS = 4
CONNECTIONS = 32
CONFIG = """\
routes:
  eka: {{listen: "127.0.0.1:0", upstream: "http://127.0.0.1:{port}", credential: eka}}
credentials:
  eka: {{kind: bearer, token: "aaaa.bbbb.cccc", origins: ["http://127.0.0.1:{port}"]}}
admin: {{listen: null}}
"""


def main() -> int:
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        sys.stderr.write(f"benchmark: please install {' and '.join(missing)}\n")
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _free_port()
        _start_upstream(stack, folder, port)
        proxy, url = _start_proxy(stack, folder, port)
        figures = [_measure(proxy.pid, f"{url}/dr/v1/patient/1") for _ in range(RUNS + 1)]
    for microseconds, rate in figures[1:]:  # the first run warms up
        sys.stdout.write(f"{microseconds:6.1f} us CPU/request  {rate:8.0f} requests/s\n")
    times = [microseconds for microseconds, _ in figures[1:]]
    spread = f"{min(times):.1f} to {max(times):.1f}"
    sys.stdout.write(f"median {statistics.median(times):.1f} us CPU/request ({spread})\n")
    return 0


def _start_upstream(stack: ExitStack, folder: Path, port: int) -> None:
    body = json.dumps({"patient_id": "1", "filler": "x" * 267})
    text = (HERE / "nginx.conf").read_text(encoding="utf-8")
    conf = folder / "nginx.conf"
    conf.write_text(text.replace("UPSTREAM_PORT", str(port)).replace("BODY", body))
    _start(stack, "nginx", "-p", str(folder), "-c", str(conf))


def _start_proxy(stack: ExitStack, folder: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    log = stack.enter_context((folder / "access.log").open("w+", encoding="utf-8"))
    proxy = _start(stack, sys.executable, "-m", "proxy", "run", "-c", str(config), stdout=log)
    while not (ready := (folder / "access.log").read_text(encoding="utf-8")):
        if proxy.poll() is not None:
            raise SystemExit("the proxy did not start")
        os.sched_yield()
    url: str = json.loads(ready.splitlines()[0])["listeners"]["eka"]
    urllib.request.urlopen(url + "/dr/v1/patient/1").read()  # noqa: S310 - a URL of our own
    return proxy, url


def _start(stack: ExitStack, *words: str, stdout: object = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(words, stdout=stdout, text=True, cwd=HERE.parent)  # type: ignore[call-overload]  # noqa: S603
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process  # type: ignore[no-any-return]


def _measure(pid: int, url: str) -> tuple[float, float]:
    before = _cpu_seconds(pid)
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout  # noqa: S603
    spent = _cpu_seconds(pid) - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"requests failed:\n{output}")
    served = re.search(r"(\d+) requests in", output)
    assert served is not None  # noqa: S101 - wrk always says so
    return spent / int(served[1]) * 1e6, int(served[1]) / SECONDS


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main())
