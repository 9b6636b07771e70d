"""The proxy that everybody writes with aiohttp. What it goes by comes in the environment."""

import base64
import hmac
import os
import time
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

UPSTREAM = f"{os.environ['SCHEME']}://{os.environ['UPSTREAM_ADDRESS']}"
SIGNING = os.environ["SIGNING"]
TOKEN = os.environ["TOKEN"]
DEVELOPER_KEY = os.environ["DEVELOPER_KEY"]
HMAC_KEY = os.environ["HMAC_KEY"].encode()
SESSION = web.AppKey("SESSION", ClientSession)
NOT_PASSED_ON = {"host", "connection", "keep-alive", "te", "transfer-encoding", "upgrade"}


def credentials() -> dict[str, str]:
    if SIGNING == "eka":
        return {"Authorization": f"Bearer {TOKEN}", "auth": TOKEN}
    stamp = str(time.time_ns() // 1_000_000)
    signature = hmac.digest(HMAC_KEY, stamp.encode(), "sha256")
    return {
        "developer_key": DEVELOPER_KEY,
        "secret-key": base64.b64encode(signature).decode(),
        "secret-key-timestamp": stamp,
    }


async def forward(request: web.Request) -> web.Response:
    passed = {k: v for k, v in request.headers.items() if k.lower() not in NOT_PASSED_ON}
    async with request.app[SESSION].request(
        request.method,
        UPSTREAM + request.path_qs,
        headers=passed | credentials(),
        data=await request.read() or None,
        allow_redirects=False,
    ) as answer:
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in NOT_PASSED_ON}
        return web.Response(status=answer.status, headers=headers, body=await answer.read())


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as app[SESSION]:
        yield


app = web.Application()
app.cleanup_ctx.append(session)
app.router.add_route("*", "/{path:.*}", forward)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)
