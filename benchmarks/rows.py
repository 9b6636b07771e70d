"""What is measured: `ROWS`, at the end, names all rows. A row yields a table or several."""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmarks import load, upstream
from benchmarks.proxies import (
    CADDY,
    EKEKO,
    GO,
    GO_POOLED,
    HAPROXY,
    MITMPROXY,
    NGINX,
    USUAL,
    Configuration,
    Job,
    Proxy,
    ekeko,
)
from benchmarks.rounds import Metric, Reading, Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.lab import Lab, Running

Row: TypeAlias = "Callable[[Lab], Iterator[Table]]"

CPU = Metric("cpu", "µs CPU/request")
RATE = Metric("rate", "requests/s", 0)
MIB = 1024 * 1024


def _pass_echoes(job: Job, configuration: Configuration) -> None:
    """Turn off the search for echoed credentials; what it costs is held against this."""
    del job
    configuration["routes"]["benchmark"]["scrub"] = False


UNSCRUBBED = ekeko(_pass_echoes, "ekeko, scrub: false")


def small(lab: Lab) -> Iterator[Table]:
    """Eka bearer, 300-byte JSON answers, 32 kept-alive connections."""
    proxies = [EKEKO, UNSCRUBBED, GO, GO_POOLED, HAPROXY, NGINX, CADDY, MITMPROXY, USUAL]
    targets = [
        Target("cpu", 0.85, GO.name),
        Target("cpu", 3, HAPROXY.name),
        Target("cpu", 0.25, USUAL.name),
    ]
    yield _rates(lab, _table(small, (CPU, RATE), targets), proxies, lab.job)


def eko(lab: Lab) -> Iterator[Table]:
    """Eko signatures (nginx and Caddy cannot), else as small; ekeko with `timestamps: clock`."""
    proxies = [EKEKO, UNSCRUBBED, GO, GO_POOLED, HAPROXY, MITMPROXY, USUAL]
    table = _table(eko, (CPU, RATE), [Target("cpu", 0.9, GO.name)])
    yield _rates(lab, table, proxies, partial(lab.job, "eko"))


def tls(lab: Lab) -> Iterator[Table]:
    """As small, with TLS 1.3 to the upstream."""
    table = _table(tls, (CPU, RATE), [Target("cpu", 0.85, GO.name)])
    yield _rates(lab, table, [EKEKO, GO, GO_POOLED, NGINX], partial(lab.job, tls=True))


def latency(lab: Lab) -> Iterator[Table]:
    """Small calls, one after the other: what a proxy adds to the direct call's time, in µs."""
    metrics = (Metric("p50", "added p50"), Metric("p99", "added p99"), Metric("all", "p50"))
    table = _table(latency, metrics, [Target("p50", 1.2, GO.name)])
    with lab.running(table, _named(EKEKO, GO, HAPROXY), lab.job) as running:
        ports = {name: it.job.port for name, it in running.items()}
        ports["direct call"] = lab.upstream.port
        turns = {name: partial(_latency, port, lab.seconds) for name, port in ports.items()}
        table.take_turns(turns, lab.rounds)
    _subtract_direct_call(table)
    yield table


def _subtract_direct_call(table: Table) -> None:
    """Turn `p50` and `p99` into what is added to the direct call's in the same round."""
    direct = table.samples.get("direct call", {})
    for key in ("p50", "p99"):
        base = direct.pop(key, [])
        for name, columns in table.samples.items():
            if name != "direct call":
                columns[key] = [
                    whole - part for whole, part in zip(columns[key], base, strict=True)
                ]


def _latency(port: int, seconds: float) -> Reading:
    times = load.latencies(port, seconds)
    middle = statistics.median(times)
    return {"all": middle, "p50": middle, "p99": times[len(times) * 99 // 100]}


def stream(lab: Lab) -> Iterator[Table]:
    """1 GiB down and up, over one connection or shared by 16; the peak is above the idle memory."""
    metrics = (
        Metric("cpu", "s CPU/GiB", 2),
        Metric("peak", "peak memory, + MiB"),
        Metric("rate", "MiB/s", 0),
    )
    targets = [Target("cpu", 2, GO.name), Target("peak", 20)]
    for direction, move in (("down", load.download), ("up", load.upload)):
        for streams in (1, 16):
            table = _table(stream, metrics, targets, f"{direction}, {streams} at once")
            # Anew for each table, so that none begins with another's memory.
            proxies = _named(EKEKO, UNSCRUBBED, GO, GO_POOLED, HAPROXY)
            with lab.running(table, proxies, lab.stream_job) as running:
                time.sleep(1)  # until what starting took has been given back
                idle = {name: it.process.memory() for name, it in running.items()}
                turns = {
                    name: partial(
                        _stream,
                        it,
                        idle[name],
                        partial(move, size=lab.stream_bytes, streams=streams),
                    )
                    for name, it in running.items()
                }
                table.take_turns(turns, lab.rounds)
            yield table


def _stream(running: Running, idle: int, move: Callable[[int], int]) -> Reading:
    process = running.process
    process.forget_peak()
    cpu, begin = process.cpu_seconds(), time.monotonic()
    moved = move(running.job.port)
    elapsed = time.monotonic() - begin
    return {
        "cpu": (process.cpu_seconds() - cpu) / moved * 1024 * MIB,
        "peak": (process.peak_memory() - idle) / MIB,
        "rate": moved / MIB / elapsed,
    }


def idle(lab: Lab) -> Iterator[Table]:
    """10,000 idle kept-alive connections, after a call on each; calls on one more, in µs."""
    metrics = (
        Metric("memory", "KiB/connection"),
        Metric("before", "p50 without"),
        Metric("with", "p50 with"),
        Metric("harm", "with ÷ without", 2),
    )
    table = _table(idle, metrics, [Target("memory", 1, GO.name), Target("harm", 1.2)])
    proxies = _named(EKEKO, GO)
    turns = {name: partial(_idle, lab, proxy) for name, proxy in proxies.items()}
    table.take_turns(turns, lab.rounds)
    yield table


def _idle(lab: Lab, proxy: Proxy) -> Reading:
    job, count = lab.job(), lab.idle_connections
    with lab.started(proxy, job) as process:
        upstream.verify(job.port, job.signing)
        before = statistics.median(load.latencies(job.port, lab.seconds))
        memory = process.memory()
        with load.Callers(job.port, count) as callers:
            time.sleep(1)
            memory = process.memory() - memory
            during = statistics.median(load.latencies(job.port, lab.seconds))
            callers.call_some()
    return {
        "memory": memory / count / 1024,
        "before": before,
        "with": during,
        "harm": during / before,
    }


def start(lab: Lab) -> Iterator[Table]:
    """From starting the program to the first answer through it; memory a second later."""
    metrics = (Metric("start", "start, ms", 0), Metric("memory", "idle memory, MiB"))
    targets = [Target("start", 1.5, USUAL.name), Target("start", 600), Target("memory", 60)]
    table = _table(start, metrics, targets)
    turns = {name: partial(_start, lab, it) for name, it in _named(EKEKO, USUAL, GO).items()}
    table.take_turns(turns, lab.rounds)
    yield table


def _start(lab: Lab, proxy: Proxy) -> Reading:
    job = lab.job()
    begin = time.monotonic()
    with lab.started(proxy, job) as process:
        upstream.get(job.port, upstream.PATHS["eka"])
        elapsed = time.monotonic() - begin
        upstream.verify(job.port, job.signing)
        time.sleep(1)
        return {"start": elapsed * 1000, "memory": process.memory() / MIB}


def growth(lab: Lab) -> Iterator[Table]:
    """Cost of a request as connections, routes on one listener, or workspaces grow."""
    yield _connections(lab)
    yield _routes(lab)
    yield _workspaces(lab)


def _connections(lab: Lab) -> Table:
    counts = [1, 8, 64, 512, 4096]
    proxies = _named(EKEKO, GO)
    table = _growing("connections", counts, list(proxies))
    with lab.running(table, proxies, lab.job) as running:
        turns = {
            # The more, the longer until all are connected.
            f"{name} ({count:,})": partial(
                lab.wrk, it, connections=count, settle=0.5 + count / 1000
            )
            for name, it in running.items()
            for count in counts
        }
        table.take_turns(turns, lab.rounds)
    return table


def _routes(lab: Lab) -> Table:
    counts = [1, 10, 100, 1000]
    table = _growing("routes", counts)
    proxies = {f"ekeko ({count:,})": ekeko(partial(_add_routes, count)) for count in counts}
    with lab.running(table, proxies, lab.job) as running:
        table.take_turns({name: partial(lab.wrk, it) for name, it in running.items()}, lab.rounds)
    return table


def _add_routes(count: int, job: Job, configuration: Configuration) -> None:
    """Put routes before the usual one, which is called: all others have longer prefixes."""
    del job
    usual = configuration["routes"]["benchmark"]
    others = {
        f"route-{number}": usual | {"prefix": f"/dr/v1/route-{number}"}
        for number in range(1, count)
    }
    configuration["routes"] = others | {"benchmark": usual}


def _workspaces(lab: Lab) -> Table:
    counts = [1, 100, 5000]
    table = _growing("workspaces", counts)
    proxies = {f"ekeko ({count:,})": ekeko(partial(_add_workspaces, count)) for count in counts}
    with lab.running(table, proxies, lab.job) as running:
        turns = {}
        for (name, it), count in zip(running.items(), counts, strict=False):
            with table.noting(name):
                upstream.visit_workspaces(it.job.port, count)  # so that all tokens are there
            script = [str(Path(__file__).with_name("workspaces.lua")), str(count)]
            turns[name] = partial(lab.wrk, it, script=script)
        table.take_turns(turns, lab.rounds)
    return table


def _add_workspaces(count: int, job: Job, configuration: Configuration) -> None:
    """Log in, at the upstream's instant login, for each of w1 … wCOUNT."""
    origin = f"http://{job.upstream_address}"
    configuration["credentials"]["benchmark"] = {
        "kind": "eka",
        "client_id": "benchmark",
        "client_secret": "benchmark",
        "login_url": origin,
        "origins": [origin],
        "workspaces": {f"w{n}": {"sharing_key": f"key-{n}"} for n in range(1, count + 1)},
    }


def _growing(of: str, counts: Sequence[int], names: Sequence[str] = ("ekeko",)) -> Table:
    """Return a table in which each count is held against the first."""
    base = {f"{name} ({count:,})": f"{name} ({counts[0]:,})" for name in names for count in counts}
    targets = [
        Target("cpu", 1.5, f"ekeko ({counts[0]:,})", f"ekeko ({count:,})") for count in counts[1:]
    ]
    return _table(growth, (CPU, RATE), targets, of, base)


def _rates(lab: Lab, table: Table, proxies: Sequence[Proxy], make_job: Callable[[], Job]) -> Table:
    with lab.running(table, _named(*proxies), make_job) as running:
        table.take_turns({name: partial(lab.wrk, it) for name, it in running.items()}, lab.rounds)
    return table


def _table(
    row: Row,
    metrics: tuple[Metric, ...],
    targets: Sequence[Target],
    part: str = "",
    base: Mapping[str, str] | None = None,
) -> Table:
    title = f"{row.__name__}: {part}" if part else row.__name__
    return Table(title, row.__doc__ or "", metrics, targets, base or {})


def _named(*proxies: Proxy) -> dict[str, Proxy]:
    return {proxy.name: proxy for proxy in proxies}


# Each is told by its docstring.
ROWS: dict[str, Row] = {
    row.__name__: row for row in (small, eko, tls, latency, stream, idle, start, growth)
}
