"""ekeko beside its peers, in one run: `scripts/bench`.

rows.py says what is measured, proxies.py how each proxy is started (its configuration or source
lies in peers/), upstream.py what answers behind them, load.py what calls them, processes.py what
they cost. rounds.py takes turns and collects, report.py prints.
"""
