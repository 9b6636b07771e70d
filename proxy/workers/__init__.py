"""Several processes that serve on the same addresses: a supervisor, and its workers.

The supervisor binds addresses, logs in, tells about all, and replaces workers that end. A worker
is an `App` whose tokens, stamps and sockets come from it (`app.Post`).
"""
