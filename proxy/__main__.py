"""`python -m proxy` is `ekeko`."""

from proxy.cli import main

raise SystemExit(main())
