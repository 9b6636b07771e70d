"""One session of Eka's published Python client: `eka_client.py PROXY VENDOR FILE`.

PROXY and VENDOR are origins; VENDOR, the stand-in, is only asked to revoke its tokens. FILE is
uploaded. Prints one JSON object: what each call gave.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from ekacare import EkaCareClient  # type: ignore[import-untyped]


def session(proxy: str, vendor: str, file: str) -> dict[str, Any]:
    client = EkaCareClient("dummy-client-id", "dummy-client-secret", base_url=proxy)
    got: dict[str, Any] = {"login": client.auth.login()}
    client.set_access_token(got["login"]["access_token"])
    got["upload"] = client.records.upload_document(file, "lr", tags=["dummy"], title="Report")
    got["listed"] = client.records.list_documents()
    got["document"] = client.records.get_document(got["upload"]["document_id"])
    got["card"] = hashlib.sha256(client.abdm_profile.get_abha_card()).hexdigest()
    got["profile"] = client.abdm_profile.get_profile()
    got["profile_update"] = client.abdm_profile.update_profile({"first_name": "Asha"})
    vital = client.vitals.create_heart_rate_vital(75, "2026-01-01T12:00:00")
    got["vitals"] = client.vitals.update_vitals("txn-1", [vital])
    got["appointment"] = client.appointments.get_appointment_details("api-ap-7")
    got["refresh"] = client.auth.refresh_token(got["login"]["refresh_token"])
    client.set_access_token(got["refresh"]["access_token"])

    client.session.post(f"{vendor}/_sandbox/revoke", timeout=10).raise_for_status()
    got["patient_after_revocation"] = client.patient.get_patient("p-1")
    got["deleted"] = client.records.delete_document(got["upload"]["document_id"])
    got["listed_after_deletion"] = client.records.list_documents()
    return got


if __name__ == "__main__":
    json.dump(session(*sys.argv[1:]), sys.stdout)
