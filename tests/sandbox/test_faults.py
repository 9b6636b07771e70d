"""Fault injection: what reaches a caller, and what was carried out all the same."""

import asyncio
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientResponseError,
    ClientSession,
)

from proxy.sandbox import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET, Fault, StandIns, parse_fault
from proxy.sandbox.faults import Kind

LOGIN = "/connect-auth/v1/account/login"
GOOD = {"client_id": SANDBOX_CLIENT_ID, "client_secret": SANDBOX_CLIENT_SECRET}


async def login(http: ClientSession, stand_ins: StandIns) -> tuple[int, str]:
    async with http.post(stand_ins.eka_url + LOGIN, json=GOOD) as response:
        return response.status, await response.text()


async def test_a_status_comes_as_often_as_asked(http: ClientSession, stand_ins: StandIns) -> None:
    fault = Fault(status=429, headers={"Retry-After": "7"}, body="slow", times=2)
    stand_ins.eka.faults.add(fault)
    async with http.post(stand_ins.eka_url + LOGIN, json=GOOD) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert await login(http, stand_ins) == (429, "slow")
    assert (await login(http, stand_ins))[0] == 200
    assert (stand_ins.eka.arrived, stand_ins.eka.logins) == (3, 1)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset_before_head", ClientConnectionError),
        ("close_before_head", ClientConnectionError),
        ("reset_mid_body", (ClientPayloadError, ClientConnectionError)),
        ("short_body", ClientPayloadError),
        ("garbage", ClientResponseError),
    ],
)
@pytest.mark.parametrize("after_processing", [False, True])
async def test_a_broken_answer_may_hide_a_call_that_was_carried_out(
    http: ClientSession,
    stand_ins: StandIns,
    kind: Kind,
    error: type[Exception],
    *,
    after_processing: bool,
) -> None:
    stand_ins.eka.faults.add(Fault(kind=kind, after_processing=after_processing))
    with pytest.raises(error):
        await login(http, stand_ins)
    assert stand_ins.eka.logins == int(after_processing)
    assert len(stand_ins.eka.journal) == 1


async def test_a_torn_body_arrives_up_to_the_tear(stand_ins: StandIns) -> None:
    stand_ins.eka.faults.add(Fault(kind="short_body", status=206, body="begun"))
    answer = await raw_exchange(stand_ins.eka_url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert b"Content-Length: 1005" in head
    assert body == b"begun"


async def test_garbage_is_sent_as_it_was_given(stand_ins: StandIns) -> None:
    stand_ins.eka.faults.add(Fault(kind="garbage", body="\x01\x02 HTTP\n"))
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert await raw_exchange(stand_ins.eka_url, request) == b"\x01\x02 HTTP\n"


async def test_an_echo_repeats_what_it_was_sent(http: ClientSession, stand_ins: StandIns) -> None:
    stand_ins.eka.faults.add(Fault(kind="echo", status=418))
    sent = {"X-Mine": "a b"}
    async with http.post(stand_ins.eka_url + LOGIN, json=GOOD, headers=sent) as response:
        assert (response.status, response.headers["Echo-X-Mine"]) == (418, "a b")
        assert (await response.json())["headers"]["X-Mine"] == "a b"
    assert stand_ins.eka.logins == 0


@pytest.mark.parametrize("after_processing", [False, True])
async def test_a_delay_ends_in_the_real_answer(
    http: ClientSession, stand_ins: StandIns, *, after_processing: bool
) -> None:
    fault = Fault(kind="delay", seconds=0.001, after_processing=after_processing)
    stand_ins.eka.faults.add(fault)
    assert (await login(http, stand_ins))[0] == 200
    assert stand_ins.eka.logins == 1


async def test_a_hang_lasts_until_the_stand_ins_stop(http: ClientSession) -> None:
    async with asyncio.timeout(5), StandIns() as stand_ins:
        stand_ins.eka.faults.add(Fault(kind="hang"))
        hanging = asyncio.create_task(login(http, stand_ins))
        await arrival(stand_ins)
    with pytest.raises(ClientConnectionError):
        await hanging


async def test_an_answer_can_come_before_the_body_was_read(stand_ins: StandIns) -> None:
    stand_ins.eka.faults.add(Fault(status=413, read_body=False))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    answer = await raw_exchange(stand_ins.eka_url, head, until=b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not stand_ins.eka.journal[0].body_complete


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ("*", True),
        ("* /connect", True),
        ("post /connect-auth", True),
        ("GET /connect-auth", False),
        ("POST /dr", False),
    ],
)
async def test_a_fault_strikes_what_it_is_meant_for(
    http: ClientSession, stand_ins: StandIns, match: str, *, hit: bool
) -> None:
    stand_ins.eka.faults.add(Fault(match=match, times=None))
    for _ in range(2):
        assert (await login(http, stand_ins))[0] == (500 if hit else 200)


@pytest.mark.parametrize(
    ("description", "named"),
    [
        ([], "object"),
        ({"kind": "explode"}, "kind"),
        ({"match": "/path"}, "match"),
        ({"match": "GET path"}, "match"),
        ({"status": True}, "status"),
        ({"status": 101}, "status"),
        ({"times": 0}, "times"),
        ({"seconds": float("nan")}, "seconds"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"a": "b\r\nc"}}, "headers"),
        ({"read_body": False, "after_processing": True}, "read_body"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_description_is_told_by_name(description: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_fault(description)


async def test_an_upload_cut_off_is_never_carried_out(stand_ins: StandIns) -> None:
    body = b'{"client_id":'
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n" % LOGIN.encode()
    await raw_exchange(stand_ins.eka_url, head + body, half_close=True)
    await arrival(stand_ins)
    arrived = stand_ins.eka.journal[0]
    assert (arrived.body_length, arrived.body_complete) == (len(body), False)
    assert stand_ins.eka.calls == 0


async def test_a_caller_that_waits_for_100_continue_gets_it(stand_ins: StandIns) -> None:
    head = b"PUT /k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    answer = await raw_exchange(stand_ins.storage_url, head, until=b"\r\n\r\n")
    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"


async def arrival(stand_ins: StandIns) -> None:
    """Wait until a first request is in Eka's journal."""
    async with asyncio.timeout(5):
        while not stand_ins.eka.journal:  # noqa: ASYNC110 - a journal wakes nobody
            await asyncio.sleep(0)


async def raw_exchange(
    origin: str, request: bytes, *, until: bytes = b"", half_close: bool = False
) -> bytes:
    """Send bytes as they are; return what comes up to `until`, or up to the end."""
    host, _, port = origin.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(5):
        writer.write(request)
        if half_close:
            writer.write_eof()
        answer = await (reader.readuntil(until) if until else reader.read())
        writer.close()
        await writer.wait_closed()
    return answer
