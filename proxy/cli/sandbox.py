"""`ekeko sandbox`: stand-ins of Eka and Eko that verify, and the proxy in front of them."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from proxy import process, sandbox
from proxy.app import App
from proxy.clock import SystemClock
from proxy.config.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_PORTS = {"eka": 8180, "eko": 8280, "admin": 8190}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--upstreams-only", action="store_true", help="start the stand-ins without the proxy"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    process.set_up_logging("info")
    if args.upstreams_only:
        return process.run(_stand_ins_alone())
    writer = process.StdoutWriter()
    try:
        return process.run(_sandbox(writer.write))
    finally:
        writer.close()


async def _sandbox(write: Callable[[str], None]) -> int:
    async with _stand_ins() as stand_ins:
        app = await _start(stand_ins, write)
        print(guide(app.addresses(), stand_ins), file=sys.stderr, flush=True)
        await app.run()
    return 0


async def _stand_ins_alone() -> int:
    async with _stand_ins() as stand_ins:
        print(_stand_ins_text(stand_ins), file=sys.stderr, flush=True)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
    return 0


def _stand_ins() -> sandbox.StandIns:
    return sandbox.StandIns(eka_port=8181, eko_port=8281, storage_port=8381, fallback=True)


async def _start(stand_ins: sandbox.StandIns, write: Callable[[str], None]) -> App:
    """Start on the usual ports, or on free ones if one of those is taken."""
    try:
        return await _start_on(stand_ins, _PORTS, write)
    except OSError as error:
        print(f"{error.strerror}; taking free ports instead", file=sys.stderr)
        return await _start_on(stand_ins, dict.fromkeys(_PORTS, 0), write)


async def _start_on(
    stand_ins: sandbox.StandIns, ports: dict[str, int], write: Callable[[str], None]
) -> App:
    settings = Settings.model_validate(configuration(stand_ins, ports))
    app = App(settings, clock=SystemClock(), write=write)
    process.handle_signals(app)
    await app.start()
    return app


def configuration(stand_ins: sandbox.StandIns, ports: dict[str, int]) -> dict[str, Any]:
    """Write the configuration of a proxy in front of the stand-ins: dummy secrets, in full."""
    return {
        "routes": {
            "eka": {
                "listen": f"127.0.0.1:{ports['eka']}",
                "upstream": stand_ins.eka_url,
                "credential": "eka",
            },
            "eko": {
                "listen": f"127.0.0.1:{ports['eko']}",
                "upstream": stand_ins.eko_url,
                "credential": "eko",
            },
        },
        "credentials": stand_ins.credentials(),
        "admin": {"listen": f"127.0.0.1:{ports['admin']}"},
    }


def guide(addresses: dict[str, Any], stand_ins: sandbox.StandIns) -> str:
    """Write what to try, as lines to paste into another terminal."""
    eka, eko = addresses["listeners"]["eka"], addresses["listeners"]["eko"]
    initiator = sandbox.SANDBOX_INITIATOR_ID
    return f"""\
ekeko sandbox: the proxy is in front of stand-ins that verify what reaches them.
Paste these into another terminal; none of them carries a credential.

# Eka: a patient's record; the proxy attaches a token
curl -sS {eka}/dr/v1/patient/176650465340471

# Eka: the token expires at the vendor; the next call logs in again and heals itself
curl -sS -X POST {stand_ins.eka_url}/_sandbox/expire && \\
  curl -sS {eka}/dr/v1/patient/176650465340471

# Eka: on behalf of another workspace
curl -sS -H 'X-Eka-Workspace: clinic-a' {eka}/dr/v1/business/entities

# Eko: a signed call
curl -sS '{eko}/ekoapi/v3/customer/payment/bbps/operators?initiator_id={initiator}'

# Eko: a bill payment, with its request_hash
curl -sS -X POST -H 'Content-Type: application/json' {eko}/ekoapi/v2/billpayments/paybill \\
  -d '{{"utility_acc_no": "151627591", "amount": 50.0, "user_code": "20810200", \
"client_ref_id": "demo-1", "initiator_id": "{initiator}"}}'

# Status for people, health, metrics
curl -sS {addresses["admin"]}/readyz; curl -sS {addresses["admin"]}/metrics | grep ekeko_requests

{_stand_ins_text(stand_ins)}
Ctrl-C stops everything."""


def _stand_ins_text(stand_ins: sandbox.StandIns) -> str:
    return (
        f"Stand-ins: Eka {stand_ins.eka_url}, Eko {stand_ins.eko_url}, "
        f"storage {stand_ins.storage_url}; each has /_sandbox/state.\n"
        "For a configuration of your own, list an origin in its credential's `origins` (and as\n"
        f"`login_url`), with client_id {sandbox.SANDBOX_CLIENT_ID}, "
        f"client_secret {sandbox.SANDBOX_CLIENT_SECRET},\n"
        f"developer_key {sandbox.SANDBOX_DEVELOPER_KEY}, "
        f"access_key {sandbox.SANDBOX_ACCESS_KEY}."
    )
