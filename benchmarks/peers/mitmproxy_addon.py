"""The addon that attaches the headers. What it goes by comes in the environment."""

import base64
import hmac
import os
import time
from typing import Any

SIGNING = os.environ["SIGNING"]
TOKEN = os.environ["TOKEN"]
DEVELOPER_KEY = os.environ["DEVELOPER_KEY"]
HMAC_KEY = os.environ["HMAC_KEY"].encode()


def requestheaders(flow: Any) -> None:
    headers = flow.request.headers
    if SIGNING == "eka":
        headers["authorization"] = f"Bearer {TOKEN}"
        headers["auth"] = TOKEN
        return
    stamp = str(time.time_ns() // 1_000_000)
    signature = hmac.digest(HMAC_KEY, stamp.encode(), "sha256")
    headers["developer_key"] = DEVELOPER_KEY
    headers["secret-key"] = base64.b64encode(signature).decode()
    headers["secret-key-timestamp"] = stamp
