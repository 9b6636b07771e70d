"""ekeko beside its peers, in one run: `scripts/bench`.

rows.py says what is measured, and is where to begin. proxies.py: how each proxy is started, its
configuration or source being in peers/. upstream.py, bulk.py: what answers behind them. load.py:
what calls them. processes.py: what they cost. lab.py holds these together for a row; rounds.py
takes turns, collects and judges; report.py shows.
"""
