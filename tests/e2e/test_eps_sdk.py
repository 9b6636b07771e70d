"""Eko's own client library, `eps-sdk`, unmodified and with dummy credentials."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from proxy.sandbox import SANDBOX_ACCESS_KEY, SANDBOX_DEVELOPER_KEY, SANDBOX_USER_CODE
from proxy.sandbox.eko_auth import sign
from tests.e2e.vendor_client import Session, run_session, values

if TYPE_CHECKING:
    from proxy.sandbox import Arrived

NAMES = ("pan_card", "aadhar_front", "aadhar_back")
# 400 KiB each: together more than the proxy keeps of a body.
PICTURES = [random.Random(name).randbytes(400 * 1024) for name in NAMES]  # noqa: S311 - noise
BILL = "/ekoapi/v3/customer/payment/bbps"
SIGNATURE = ("developer_key", "secret-key", "secret-key-timestamp", "request_hash")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("eko")
    files = [folder / f"{name}.jpg" for name in NAMES]
    for file, picture in zip(files, PICTURES, strict=True):
        file.write_bytes(picture)
    return run_session("eko", files)


def journal(session: Session, method: str, target: str) -> list[Arrived]:
    return [
        each
        for each in session.stand_ins.eko.journal
        if each.method == method and each.target.partition("?")[0] == target
    ]


def test_every_call_is_signed_afresh_and_accepted(session: Session) -> None:
    eko = session.stand_ins.eko
    # Seven calls of the test's, and the inquiry that the library makes about the lost one.
    assert eko.arrived == eko.calls == len(eko.journal) == 8
    assert not eko.refused
    stamps = [values(each, "secret-key-timestamp")[0] for each in eko.journal]
    assert len(set(stamps)) == len(stamps)
    assert stamps == sorted(stamps)


def test_the_library_s_own_signature_never_arrives(session: Session) -> None:
    for each in session.stand_ins.eko.journal:
        names = [key.decode().lower().replace("_", "-") for key, _ in each.headers]
        assert all(names.count(name.replace("_", "-")) <= 1 for name in SIGNATURE)
        [stamp] = values(each, "secret-key-timestamp")
        assert values(each, "developer_key") == [SANDBOX_DEVELOPER_KEY]
        assert values(each, "secret-key") == [sign(SANDBOX_ACCESS_KEY, stamp)]
        assert "dummy" not in " ".join(value.decode() for _, value in each.headers)


def test_a_get_keeps_its_query(session: Session) -> None:
    answer = session.got["operators"]
    assert answer["status"] == 0
    assert answer["data"]["method"] == "GET"
    assert answer["data"]["target"] == f"{BILL}/operators?initiator_id=9962981729&category=5"
    assert session.got["banks"]["data"]["target"].startswith("/ekoapi/v3/tools/reference/banks?")


def test_a_bill_payment_carries_a_hash_of_its_literal_amount(session: Session) -> None:
    data = session.got["paid"]["data"]
    assert (data["tx_status"], data["client_ref_id"], data["amount"]) == (0, "paid-1", "50.0")
    for each in journal(session, "POST", BILL):
        [stamp] = values(each, "secret-key-timestamp")
        signed = f"{stamp}15162759150.0{SANDBOX_USER_CODE}"  # the user_code is the proxy's
        assert values(each, "request_hash") == [sign(SANDBOX_ACCESS_KEY, signed)]


def test_an_inquiry_finds_the_payment(session: Session) -> None:
    paid, inquiry = session.got["paid"]["data"], session.got["inquiry"]["data"]
    assert inquiry["tid"] == paid["tid"]
    assert inquiry["client_ref_id"] == "paid-1"


def test_an_upload_of_three_files_arrives_byte_for_byte(session: Session) -> None:
    [arrived] = journal(
        session, "PUT", f"/ekoapi/v3/admin/network/agent/{SANDBOX_USER_CODE}/aeps-fingpay/activate"
    )
    data = session.got["activated"]["data"]
    assert data["received_bytes"] == arrived.body_length > 1024 * 1024
    fields, *files = data["parts"]
    assert (fields["name"], fields["filename"]) == ("form-data", None)
    assert files == [
        {
            "name": name,
            "filename": f"{name}.jpg",
            "size": len(picture),
            "sha256": hashlib.sha256(picture).hexdigest(),
        }
        for name, picture in zip(NAMES, PICTURES, strict=True)
    ]


def test_a_kyc_post_arrives_as_json(session: Session) -> None:
    [arrived] = journal(session, "POST", "/ekoapi/v3/tools/kyc/pan-lite")
    assert values(arrived, "content-type") == ["application/json"]
    assert session.got["pan"]["status"] == 0
    assert session.got["pan"]["data"]["sha256"] == arrived.body_sha256


def test_a_payment_whose_answer_is_lost_is_made_once(session: Session) -> None:
    lost = session.got["lost"]
    assert lost["status"] == 502
    assert lost["problem"]["code"] == "outcome_unknown"
    assert lost["client_ref_id"] == "lost-1"
    assert lost["status_check"]["data"]["client_ref_id"] == "lost-1"
    payments = session.stand_ins.eko.payments
    assert [payment.client_ref_id for payment in payments] == ["paid-1", "lost-1"]
    assert not any(payment.duplicate for payment in payments)
    [line] = [each for each in session.log if each["code"]]
    assert (line["code"], line["attempts"]) == ("outcome_unknown", 1)
