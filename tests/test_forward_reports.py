"""What goes wrong beside an exchange stays beside it: one request, one answer."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest

from proxy.sandbox import Fault, StandIns
from tests.support import (
    JSON,
    PAYBILL,
    ScriptedUpstream,
    answer,
    ask,
    plain_proxy,
    proxy_in_front,
    raw_client,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Running

PAYMENT = json.dumps({"utility_acc_no": "1", "amount": 5, "user_code": "2"}).encode()


@pytest.mark.interpreted
async def test_a_log_that_fails_adds_no_second_answer(
    front: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(front.app._observer, "exchanged", fail)
    async with raw_client(front.eko) as client:
        for _ in range(2):
            assert (await client.ask("POST", PAYBILL, [JSON], PAYMENT)).status == 200
    assert "could not be reported" in caplog.text
    assert len(front.stand_ins.eko.payments) == 2


async def test_an_exception_that_gets_out_of_a_handler_ends_the_connection(
    front: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(front.app, "status", fail)
    async with raw_client(front.admin) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await client.rest() == b""
    assert "serving a request failed unexpectedly" in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        "/connect-auth/v1/account/login/",
        "/connect-auth/v1/account/Login",
        "/Connect-Auth/v1/account/refresh-token/",
        "/connect-auth/v1/account/login%20",
        "/connect-auth/v1/account/%6cogin",
    ],
)
async def test_a_login_in_another_spelling_is_not_tried_at_the_vendor(
    front: Running, path: str
) -> None:
    body = b'{"client_id": "dummy", "client_secret": "dummy"}'
    got = await ask(front.eka, "POST", path, [JSON], body)
    assert got.status == 200
    assert got.json()["refresh_token"] == "synthetic-refresh-token"
    bodies = [each.body_sha256 for each in front.stand_ins.eka.journal]
    assert hashlib.sha256(body).hexdigest() not in bodies


async def test_a_login_below_a_base_path_is_answered_too() -> None:
    async with StandIns() as stand_ins:
        url = f"{stand_ins.eka_url}/connect-auth"
        async with proxy_in_front(stand_ins, {"routes": {"eka": {"upstream": url}}}) as front:
            got = await ask(front.eka, "POST", "/v1/account/login", [JSON], b"{}")
            assert got.json()["refresh_token"] == "synthetic-refresh-token"


async def test_a_compressed_refusal_at_ekos_door_is_understood(front: Running) -> None:
    async with ScriptedUpstream(
        [
            answer(
                gzip.compress(b'{"status": 2485}'),
                "Content-Encoding: gzip",
                status="401 Unauthorized",
            ),
            answer(b"paid"),
        ]
    ) as upstream:
        change = {
            "routes": {"eko": {"upstream": upstream.url}},
            "credentials": {"eko": {"origins": [upstream.url]}},
        }
        async with proxy_in_front(front.stand_ins, change) as proxy:
            assert (await ask(proxy.eko, "POST", PAYBILL, [JSON], PAYMENT)).body == b"paid"
            stamps = [each.get("secret-key-timestamp") for each in upstream.requests]
            assert len(set(stamps)) == 2


async def test_an_optional_hash_over_a_body_that_is_no_json_is_left_out(front: Running) -> None:
    path = "/ekoapi/v3/customer/payment/bbps"
    await ask(front.eko, "POST", path, [JSON], b"not json")
    arrived = front.stand_ins.eko.journal[-1]
    assert arrived.target == path
    assert b"request_hash" not in [name for name, _ in arrived.headers]


async def test_a_refresh_that_answers_rubbish_gives_way_to_a_login_once_the_token_is_over(
    front: Running, caplog: pytest.LogCaptureFixture
) -> None:
    front.stand_ins.eka.token_lifetime = 1
    slot = next(iter(front.app._tools.tokens._all))
    assert (await ask(front.eka, "GET", "/x")).status == 200
    rubbish = Fault("POST /connect-auth/v1/account/refresh", status=200, body="<html>", times=None)
    front.stand_ins.eka.faults.add(rubbish)
    token = slot._token
    assert token is not None
    token.expires_at = 0.0
    with caplog.at_level(logging.WARNING):
        assert (await ask(front.eka, "GET", "/x")).status == 200
    assert front.stand_ins.eka.logins == 2


async def test_a_reload_gives_a_socket_file_its_new_mode(tmp_path: Path) -> None:
    path = tmp_path / "plain.sock"
    unix = {"routes": {"plain": {"listen": f"unix:{path}", "socket_mode": "0666"}}}
    async with ScriptedUpstream([]) as upstream, plain_proxy(upstream.url, unix) as proxy:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666  # noqa: PTH116
        await proxy.reload({"routes": {"plain": {"socket_mode": "0600"}}})
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600  # noqa: PTH116


async def test_a_reload_that_cannot_set_a_sockets_mode_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plain.sock"
    unix = {"routes": {"plain": {"listen": f"unix:{path}"}}}
    async with ScriptedUpstream([]) as upstream, plain_proxy(upstream.url, unix) as proxy:
        before = proxy.app._current
        os.unlink(path)  # noqa: PTH108
        with pytest.raises(FileNotFoundError):
            await proxy.reload({"routes": {"plain": {"socket_mode": "0660"}}})
        assert proxy.app._current is before
        assert proxy.app._retired == []
