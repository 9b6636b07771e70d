"""Ordinary calls at the Eka stand-in: which headers open the door, and what is behind it."""

import asyncio
import hashlib
import io

import pytest
from aiohttp import ClientSession, FormData

from proxy.sandbox import (
    SANDBOX_CLIENT_ID,
    SANDBOX_LONG_LIVED_TOKEN,
    SANDBOX_SHARING_KEYS,
    StandIns,
)

Headers = list[tuple[str, str]]


def signed_in(stand_ins: StandIns, workspace: str | None = None) -> Headers:
    token = stand_ins.eka.tokens.issue(workspace, 1800, 3600).access
    return [("Authorization", f"Bearer {token}"), ("auth", token), ("client-id", SANDBOX_CLIENT_ID)]


async def test_a_call_is_echoed_and_journalled_as_it_was_spelled(
    http: ClientSession, stand_ins: StandIns
) -> None:
    headers = [*signed_in(stand_ins), ("X-Pt-Id", "7")]
    body = b"\x00\xff" * 1_500_000
    url = f"{stand_ins.eka_url}/dr/v1/x:y?b=1&a=2&a=3"
    async with http.put(url, data=io.BytesIO(body), headers=headers) as response:
        echo = await response.json()
    digest = hashlib.sha256(body).hexdigest()
    assert echo == {
        "sandbox": "eka",
        "method": "PUT",
        "target": "/dr/v1/x:y?b=1&a=2&a=3",
        "workspace": None,
        "received_bytes": 3_000_000,
        "sha256": digest,
    }
    arrived = stand_ins.eka.journal[-1]
    assert (arrived.method, arrived.target) == ("PUT", "/dr/v1/x:y?b=1&a=2&a=3")
    assert (b"X-Pt-Id", b"7") in arrived.headers
    assert (arrived.body_sha256, arrived.body_length) == (digest, 3_000_000)
    assert arrived.body_complete


async def test_a_target_is_never_normalised(stand_ins: StandIns) -> None:
    target = "/a/%2e%2e//b;c/x%zz?q=%2F,%2C&q=+#f"
    _, _, port = stand_ins.eka_url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in signed_in(stand_ins)]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f'"target": "{target}"'.encode() in answer
    assert stand_ins.eka.journal[0].target == target


async def test_each_of_the_three_headers_is_needed(
    http: ClientSession, stand_ins: StandIns
) -> None:
    headers = signed_in(stand_ins)
    for left_out in range(3):
        sent = headers[:left_out] + headers[left_out + 1 :]
        async with http.get(f"{stand_ins.eka_url}/x", headers=sent) as response:
            assert response.status == 401
    assert stand_ins.eka.calls == 0


@pytest.mark.parametrize(
    "extra",
    [
        ("jwt-payload", "{}"),
        ("JWT_Payload", "{}"),
        ("X-Eka-Workspace", "clinic-a"),
        ("auth", "canary-token"),
        ("Authorization", "Bearer canary-token"),
        ("client-id", "canary-client"),
        ("client_id", "canary-client"),
    ],
)
async def test_leftovers_of_the_caller_are_refused_without_quoting_them(
    http: ClientSession, stand_ins: StandIns, extra: tuple[str, str]
) -> None:
    headers = [*signed_in(stand_ins), extra]
    async with http.get(f"{stand_ins.eka_url}/x", headers=headers) as response:
        assert response.status == 400
        assert "canary" not in await response.text()


@pytest.mark.parametrize(
    ("authorization", "auth", "client_id"),
    [
        ("Bearer None", "None", SANDBOX_CLIENT_ID),
        ("Bearer {token}", "other", SANDBOX_CLIENT_ID),
        ("{token}", "{token}", SANDBOX_CLIENT_ID),
        ("Bearer {token}", "{token}", "dummy"),
    ],
)
async def test_headers_that_do_not_fit_together_are_refused(
    http: ClientSession, stand_ins: StandIns, authorization: str, auth: str, client_id: str
) -> None:
    token = dict(signed_in(stand_ins))["auth"]
    headers = {
        "Authorization": authorization.format(token=token),
        "auth": auth.format(token=token),
        "client-id": client_id,
    }
    async with http.get(f"{stand_ins.eka_url}/x", headers=headers) as response:
        assert response.status == 401
        assert token not in await response.text()


async def test_the_long_lived_token_needs_no_client_id(
    http: ClientSession, stand_ins: StandIns
) -> None:
    token = SANDBOX_LONG_LIVED_TOKEN
    headers = {"Authorization": f"Bearer {token}", "auth": token}
    async with http.get(f"{stand_ins.eka_url}/x", headers=headers) as response:
        assert response.status == 200


async def test_bytes_come_with_a_length_or_chunked(
    http: ClientSession, stand_ins: StandIns
) -> None:
    url = f"{stand_ins.eka_url}/sandbox/bytes/200000"
    expected = bytes(i % 251 for i in range(200_000))
    async with http.get(url, headers=signed_in(stand_ins)) as response:
        assert response.headers["Content-Length"] == "200000"
        assert await response.read() == expected
    async with http.get(f"{url}?chunked=1", headers=signed_in(stand_ins)) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert await response.read() == expected
    async with http.head(url, headers=signed_in(stand_ins)) as response:
        assert response.headers["Content-Length"] == "200000"
        assert await response.read() == b""
    async with http.get(url) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("code", "answered", "has_body"),
    [
        (200, 200, True),
        (204, 204, False),
        (304, 304, False),
        (401, 401, True),
        (491, 491, True),
        (100, 400, True),
        (600, 400, True),
    ],
)
async def test_any_final_status_can_be_had(
    http: ClientSession, stand_ins: StandIns, code: int, answered: int, *, has_body: bool
) -> None:
    url = f"{stand_ins.eka_url}/sandbox/status/{code}"
    async with http.get(url, headers=signed_in(stand_ins)) as response:
        assert response.status == answered
        assert bool(await response.read()) is has_body


async def test_a_document_is_uploaded_listed_changed_and_deleted(
    http: ClientSession, stand_ins: StandIns
) -> None:
    headers, docs = signed_in(stand_ins, "clinic-a"), f"{stand_ins.eka_url}/mr/api/v1/docs"
    batch = {"batch_request": [{"dt": "lr", "files": [{"file_size": 3}]}]}
    async with http.post(docs, json=batch, headers=headers) as response:
        made = (await response.json())["batch_response"][0]
    form = FormData(made["forms"][0]["fields"])
    form.add_field("file", b"abc", filename="report.pdf")
    async with http.post(made["forms"][0]["url"], data=form) as response:
        assert response.status == 204
    one = f"{docs}/{made['document_id']}"
    async with http.patch(one, json={"dt": "ps"}, headers=headers) as response:
        assert response.status == 204
    async with http.get(one, headers=headers) as response:
        assert (await response.json())["dt"] == "ps"
    async with http.get(docs, headers=headers) as response:
        assert len((await response.json())["items"]) == 1
    async with http.get(one, headers=signed_in(stand_ins, "clinic-b")) as response:
        assert response.status == 404
    async with http.delete(one, headers=headers) as response:
        assert response.status == 204
    async with http.get(one, headers=headers) as response:
        assert response.status == 404
    assert [(u.name, u.size) for u in stand_ins.storage.uploads] == [("report.pdf", 3)]
    assert "clinic-a" in SANDBOX_SHARING_KEYS


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"batch_request": {}}'])
async def test_a_batch_that_is_none_is_a_400(
    http: ClientSession, stand_ins: StandIns, body: bytes
) -> None:
    url = f"{stand_ins.eka_url}/mr/api/v1/docs"
    async with http.post(url, data=body, headers=signed_in(stand_ins)) as response:
        assert response.status == 400


async def test_the_card_is_a_png(http: ClientSession, stand_ins: StandIns) -> None:
    url = f"{stand_ins.eka_url}/abdm/v1/profile/asset/card"
    async with http.get(url, headers=signed_in(stand_ins)) as response:
        assert response.content_type == "image/png"
        assert (await response.read()).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/abdm/v1/profile", "abha_address"),
        ("PATCH", "/abdm/v1/profile", "status"),
        ("DELETE", "/abdm/v1/profile", "status"),
        ("GET", "/abdm/v1/profile/asset/qr?format=json", "hidn"),
        ("POST", "/abdm/v1/profile/kyc/init", "txn_id"),
        ("GET", "/dr/v1/patient/7", "patient_id"),
        ("GET", "/dr/v1/business/clinic/7", "clinic_id"),
        ("PUT", "/api/v1/vitals/t1", "txn_id"),
        ("GET", "/health/api/v1/fhir/retrieve?identifier=1", "resourceType"),
        ("GET", "/voice/api/v3/status/s1", "session_id"),
        ("POST", "/v1/file-upload?txn_id=t", "folderPath"),
    ],
)
async def test_operations_answer_what_clients_look_for(
    http: ClientSession, stand_ins: StandIns, method: str, path: str, key: str
) -> None:
    url = stand_ins.eka_url + path
    async with http.request(method, url, json={}, headers=signed_in(stand_ins)) as response:
        assert response.status == 200
        assert key in await response.json()
