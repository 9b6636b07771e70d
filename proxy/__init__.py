"""ekeko: a local authenticating reverse proxy for Eka Care and Eko."""

__version__ = "0.1.0"
