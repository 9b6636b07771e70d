"""The object storage stand-in."""

import hashlib
import io

import pytest
from aiohttp import ClientSession, FormData

from proxy.sandbox import StandIns, Upload


async def test_a_put_is_kept_by_its_path(http: ClientSession, stand_ins: StandIns) -> None:
    body = b"x" * 2_000_000
    async with http.put(f"{stand_ins.storage_url}/bucket/key", data=io.BytesIO(body)) as response:
        assert response.status == 204
    expected = Upload("/bucket/key", len(body), hashlib.sha256(body).hexdigest())
    assert list(stand_ins.storage.uploads) == [expected]


@pytest.mark.parametrize("name", ["Authorization", "auth", "Client_Id", "developer_key"])
async def test_a_credential_is_counted_and_refused(
    http: ClientSession, stand_ins: StandIns, name: str
) -> None:
    url = f"{stand_ins.storage_url}/key"
    async with http.put(url, data=b"x", headers={name: "canary"}) as response:
        assert response.status == 400
        assert "canary" not in await response.text()
    assert stand_ins.storage.leaks == 1
    assert not stand_ins.storage.uploads


async def test_a_form_without_a_file_and_a_get_are_refused(
    http: ClientSession, stand_ins: StandIns
) -> None:
    form = FormData({"key": "a"}, default_to_multipart=True)
    async with http.post(stand_ins.storage_url, data=form) as response:
        assert response.status == 400
    async with http.get(stand_ins.storage_url) as response:
        assert response.status == 400
