"""The HTTP/1.1 leg to the vendor: a pure codec, a connection, a pool for each route."""
