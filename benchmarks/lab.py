"""Where rows are measured, and how long."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import load
from benchmarks.processes import Process, wait_for_port
from benchmarks.proxies import Job, Proxy
from benchmarks.upstream import PATHS, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.rounds import Reading, Table
    from benchmarks.upstream import Signing, Upstream


class Running(NamedTuple):
    """A proxy at work."""

    process: Process
    job: Job


@dataclass(frozen=True)
class Lab:
    """The machine, the upstream, and how much is to be done."""

    folder: Path
    upstream: Upstream
    proxy_cpus: set[int]
    rounds: int
    seconds: float  # of one turn
    stream_bytes: int
    idle_connections: int

    def job(self, signing: Signing = "eka", *, tls: bool = False) -> Job:
        """Return a job towards the small answers, with a folder and a port of its own."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        port = self.upstream.tls_port if tls else self.upstream.port
        return Job(folder, self.upstream.ca, port, signing, "https" if tls else "http")

    def stream_job(self) -> Job:
        """Return a job towards the streams."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return Job(folder, self.upstream.ca, self.upstream.bulk_port)

    @contextmanager
    def started(self, proxy: Proxy, job: Job) -> Iterator[Process]:
        """Run a proxy, which listens; Failed or NotInstalled."""
        process = proxy.start(job, self.proxy_cpus)
        try:
            wait_for_port(job.port, process)
            yield process
        finally:
            process.stop()

    @contextmanager
    def running(
        self, table: Table, proxies: Mapping[str, Proxy], make_job: Callable[[], Job]
    ) -> Iterator[dict[str, Running]]:
        """Run proxies that do their job; those that do not are noted in the table."""
        running: dict[str, Running] = {}
        with ExitStack() as stack:
            for name, proxy in proxies.items():
                with table.noting(name):
                    job = make_job()
                    process = stack.enter_context(self.started(proxy, job))
                    if job.upstream_port != self.upstream.bulk_port:
                        verify(job.port, job.signing)
                    running[name] = Running(process, job)
            yield running

    def wrk(
        self,
        running: Running,
        *,
        connections: int = 32,
        settle: float = 0.5,
        script: Sequence[str] = (),
    ) -> Reading:
        """Measure one turn of small answers: see `load.wrk`."""
        job = running.job
        return load.wrk(
            running.process,
            self.upstream,
            f"http://127.0.0.1:{job.port}{PATHS[job.signing]}",
            connections=connections,
            seconds=self.seconds,
            settle=settle,
            script=script,
        )
