"""A worker process; started by `proxy.workers.hire` alone."""

import signal

# The supervisor alone decides. A terminal and a service manager send these to every process.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

from proxy.process import no_authorities  # noqa: E402 - it takes its time

with no_authorities():
    from proxy.workers.worker import main

raise SystemExit(main())
