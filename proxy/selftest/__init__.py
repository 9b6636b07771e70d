"""Attacks on the program as it is shipped, as evidence for a security review: `ekeko selftest`.

`ground` starts what is needed: `ekeko run` as a process of its own, and in front of and behind it
peers that speak raw bytes and record what reaches them. Nothing of the user's configuration,
secrets or network is touched. There is one module for each group of cases; most cases are data:

    refused("two-hosts", "Two Host fields.", get("/x", "Host: localhost"), threat=1)

means: this goes to the route `plain`, is answered 400 `bad_request`, and nothing of it or of what
stands behind it on the connection reaches the upstream. Add yours to the list `CASES` of its
group; `threat` is its number in THREAT_MODEL.md. What cannot be told so is a function, marked by
`case`. Nothing here uses the proxy's own code for reading or judging HTTP.
"""
