"""The way of a request, through a whole proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

    from tests.support import Running


async def test_an_eka_call_without_credentials_gets_ekas_answer(
    front: Running, client: aiohttp.ClientSession
) -> None:
    async with client.get(f"{front.eka}/dr/v1/patient/42") as answer:
        assert answer.status == 200
        assert (await answer.json())["patient_id"] == "42"
    assert front.stand_ins.eka.logins == 1
