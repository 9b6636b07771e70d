"""Eka's own client library, `ekacare`, unmodified and with dummy credentials."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from proxy.sandbox import SANDBOX_CLIENT_ID, Upload
from proxy.sandbox.eka_answers import CARD_PNG
from tests.e2e.vendor_client import Session, run_session, values

if TYPE_CHECKING:
    from pathlib import Path

REPORT = b"%PDF-1.4 dummy\r\n" + bytes(range(256)) * 1024
_ACCOUNT = "/connect-auth/v1/account/"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    file: Path = tmp_path_factory.mktemp("eka") / "report.pdf"
    file.write_bytes(REPORT)
    return run_session("eka", [file])


def test_login_and_refresh_are_answered_by_the_proxy(session: Session) -> None:
    eka = session.stand_ins.eka
    for name in ("login", "refresh"):
        answer = session.got[name]
        assert answer["access_token"].count(".") == 2
        assert answer["refresh_token"]
        assert isinstance(answer["expires_in"], int)
    # The vendor saw the proxy's own logins alone: the first, and the one after the revocation.
    account = [each.target for each in eka.journal if each.target.startswith(_ACCOUNT)]
    assert account == [f"{_ACCOUNT}login"] * 2
    assert (eka.logins, eka.login_failures) == (2, 0)


def test_calls_reach_the_vendor_in_order(session: Session) -> None:
    document = session.got["upload"]["document_id"]
    calls = [(each.method, each.target) for each in session.stand_ins.eka.journal]
    assert [each for each in calls if not each[1].startswith(_ACCOUNT)] == [
        ("POST", "/mr/api/v1/docs"),
        ("GET", "/mr/api/v1/docs"),
        ("GET", f"/mr/api/v1/docs/{document}"),
        ("GET", "/abdm/v1/profile/asset/card"),
        ("GET", "/abdm/v1/profile"),
        ("PATCH", "/abdm/v1/profile"),
        ("PUT", "/api/v1/vitals/txn-1"),
        ("GET", "/dr/v1/appointment/api-ap-7"),
        ("GET", "/dr/v1/patient/p-1"),  # refused: its token was revoked
        ("GET", "/dr/v1/patient/p-1"),
        ("DELETE", f"/mr/api/v1/docs/{document}"),
        ("GET", "/mr/api/v1/docs"),
    ]


def test_no_dummy_credential_reaches_the_vendor(session: Session) -> None:
    synthetic = {session.got[name]["access_token"] for name in ("login", "refresh")}
    for each in session.stand_ins.eka.journal:
        sent = " ".join(value.decode() for _, value in each.headers)
        assert "dummy-client" not in sent
        assert not any(token in sent for token in synthetic)
        if not each.target.startswith(_ACCOUNT):
            [token] = values(each, "auth")
            assert values(each, "authorization") == [f"Bearer {token}"]
            assert values(each, "client-id") == [SANDBOX_CLIENT_ID]


def test_an_upload_goes_to_storage_without_a_credential(session: Session) -> None:
    storage = session.stand_ins.storage
    digest = hashlib.sha256(REPORT).hexdigest()
    assert list(storage.uploads) == [Upload("report.pdf", len(REPORT), digest)]
    assert storage.leaks == 0
    assert (storage.arrived, storage.calls) == (1, 1)


def test_documents_are_listed_read_and_deleted(session: Session) -> None:
    got = session.got
    [item] = got["listed"]["items"]
    assert item["record"]["item"] == got["document"]
    assert got["document"]["document_id"] == got["upload"]["document_id"]
    assert got["document"]["title"] == "Report"
    assert got["document"]["tg"] == ["dummy"]
    assert got["deleted"] == {"status": "success", "status_code": 204}
    assert got["listed_after_deletion"]["items"] == []


def test_a_binary_download_is_whole(session: Session) -> None:
    assert session.got["card"] == hashlib.sha256(CARD_PNG).hexdigest()


def test_answers_come_back_as_the_vendor_gave_them(session: Session) -> None:
    got = session.got
    assert got["profile"] == {"abha_address": "sandbox@abdm", "first_name": "Sandbox"}
    assert got["profile_update"] == {"status": "success"}
    assert got["vitals"] == {"status": "success", "txn_id": "txn-1", "vitals": 1}
    assert got["appointment"]["appointment_id"] == "api-ap-7"


def test_a_call_after_a_revocation_heals(session: Session) -> None:
    assert session.got["patient_after_revocation"]["patient_id"] == "p-1"
    [line] = [each for each in session.log if each["path"].startswith("/dr/v1/patient/")]
    assert (line["status"], line["attempts"]) == (200, 2)
    assert {each["attempts"] for each in session.log if each is not line} <= {0, 1}
