"""Plausible answers of Eka's operations, as far as its published clients read them."""

import base64
import itertools
import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proxy.sandbox.wire import Call, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_KEPT_DOCUMENTS: Final = 1000
_CYCLE: Final = bytes(range(251)) * 256  # 251 is prime: a lost or doubled block shows
_BODILESS: Final = frozenset({204, 205, 304})
# A PNG of one pixel.
CARD_PNG: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class EkaAnswers:
    """Eka behind its door; keeps the newest documents, each visible in its workspace alone."""

    def __init__(self) -> None:
        self.storage_url = ""
        self._ids = itertools.count(1)
        self._documents: OrderedDict[str, tuple[str | None, dict[str, Any]]] = OrderedDict()

    def answer(self, call: Call, workspace: str | None) -> web.Response:
        """Carry out a call of an authenticated caller; unknown paths are echoed."""
        for method, pattern, operation in _OPERATIONS:
            found = pattern.fullmatch(call.path)
            if found and call.method in method.split():
                return operation(self, call, workspace, *found.groups())
        return _echo(call, workspace)

    def clear(self) -> None:
        """Forget all documents."""
        self._documents.clear()

    def create_documents(self, call: Call, workspace: str | None) -> web.Response:
        """Answer each request of the batch with forms for its files."""
        batch = json_object(call).get("batch_request")
        if not isinstance(batch, list) or not all(isinstance(entry, dict) for entry in batch):
            raise RefusedError(400, "batch_request: expected a list of objects")
        return web.json_response(
            {
                "error": False,
                "message": "",
                "batch_response": [self._new_document(entry, workspace) for entry in batch],
            }
        )

    def _new_document(self, entry: dict[str, Any], workspace: str | None) -> dict[str, Any]:
        name = f"sandbox-document-{next(self._ids)}"
        self._documents[name] = (workspace, {"document_id": name, **entry})
        if len(self._documents) > _KEPT_DOCUMENTS:
            self._documents.popitem(last=False)
        files = entry.get("files")
        forms = [
            {"url": f"{self.storage_url}/documents", "fields": {"key": f"{name}/{number}"}}
            for number in range(len(files) if isinstance(files, list) else 0)
        ]
        return {"document_id": name, "forms": forms}

    def list_documents(self, _: Call, workspace: str | None) -> web.Response:
        """Answer every document of the workspace on one page."""
        items = [
            {"record": {"item": document}}
            for owner, document in self._documents.values()
            if owner == workspace
        ]
        return web.json_response({"items": items, "next_token": None})

    def one_document(self, call: Call, workspace: str | None, name: str) -> web.Response:
        """Read, change or delete one document; another workspace's does not exist."""
        owner, document = self._documents.get(name, (None, None))
        if document is None or owner != workspace:
            raise RefusedError(404, "no such document")
        if call.method == "GET":
            return web.json_response(document)
        if call.method == "PATCH":
            document.update(json_object(call))
        else:
            del self._documents[name]
        return web.Response(status=204)

    def upload_location(self, call: Call, _: str | None) -> web.Response:
        """Answer where and with which form fields files of a transaction go."""
        transaction = call.query.get("txn_id", "sandbox-transaction")
        post = {"url": f"{self.storage_url}/uploads", "fields": {"key": "replaced by the client"}}
        return web.json_response(
            {"uploadData": post, "folderPath": f"{transaction}/", "txn_id": transaction}
        )


def json_object(call: Call) -> dict[str, Any]:
    """Decode a body that has to be a JSON object."""
    try:
        decoded = json.loads(call.body.kept or b"")
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise RefusedError(400, "expected a JSON object")
    return decoded


def _echo(call: Call, workspace: str | None) -> web.Response:
    return web.json_response(
        {
            "sandbox": "eka",
            "method": call.method,
            "target": call.target,
            "workspace": workspace,
            "received_bytes": call.body.length,
            "sha256": call.body.sha256,
        }
    )


def _bytes(_: EkaAnswers, call: Call, _workspace: str | None, count: str) -> web.Response:
    """Stream that many bytes, byte i being i modulo 251; `?chunked=1` leaves the length out."""
    if call.query.get("chunked") == "1":
        response = web.Response(body=_cycle(int(count)))
        response.enable_chunked_encoding()
        return response
    return web.Response(
        body=_cycle(int(count)), headers={"Content-Length": count.lstrip("0") or "0"}
    )


async def _cycle(count: int) -> "AsyncIterator[bytes]":
    for start in range(0, count, len(_CYCLE)):
        yield _CYCLE[: count - start]


def _status(_: EkaAnswers, call: Call, workspace: str | None, code: str) -> web.Response:
    if not 200 <= int(code) <= 599:  # noqa: PLR2004 - final statuses of HTTP
        raise RefusedError(400, "expected a status from 200 to 599")
    if int(code) in _BODILESS:
        return web.Response(status=int(code))
    response = _echo(call, workspace)
    response.set_status(int(code))
    return response


def _profile(_: EkaAnswers, call: Call, _workspace: str | None) -> web.Response:
    if call.method != "GET":
        return web.json_response({"status": "success"})
    return web.json_response({"abha_address": "sandbox@abdm", "first_name": "Sandbox"})


def _card(_: EkaAnswers, _call: Call, _workspace: str | None) -> web.Response:
    return web.Response(body=CARD_PNG, content_type="image/png")


def _qr(_: EkaAnswers, _call: Call, _workspace: str | None) -> web.Response:
    return web.json_response({"hidn": "00-0000-0000-0000", "phr": "sandbox@abdm"})


def _kyc(_: EkaAnswers, _call: Call, _workspace: str | None, step: str) -> web.Response:
    return web.json_response({"status": "success", "step": step, "txn_id": "sandbox-kyc"})


def _record(
    _: EkaAnswers, _call: Call, workspace: str | None, kind: str, name: str
) -> web.Response:
    kind = kind.rpartition("/")[2]
    return web.json_response(
        {f"{kind}_id": name, "name": f"Sandbox {kind}", "workspace": workspace}
    )


def _vitals(_: EkaAnswers, call: Call, _workspace: str | None, transaction: str) -> web.Response:
    count = len(json_object(call).get("vitals") or [])
    return web.json_response({"status": "success", "txn_id": transaction, "vitals": count})


def _bundle(_: EkaAnswers, _call: Call, _workspace: str | None) -> web.Response:
    return web.json_response({"resourceType": "Bundle", "type": "collection", "entry": []})


def _transcript(_: EkaAnswers, _call: Call, _workspace: str | None, session: str) -> web.Response:
    return web.json_response({"status": "completed", "session_id": session, "data": {"output": {}}})


_OPERATIONS: Final[list[tuple[str, re.Pattern[str], "Callable[..., web.Response]"]]] = [
    (methods, re.compile(pattern), operation)
    for methods, pattern, operation in (
        ("POST", "/mr/api/v1/docs", EkaAnswers.create_documents),
        ("GET", "/mr/api/v1/docs", EkaAnswers.list_documents),
        ("GET PATCH DELETE", "/mr/api/v1/docs/([^/]+)", EkaAnswers.one_document),
        ("POST", "/v1/file-upload", EkaAnswers.upload_location),
        ("GET PATCH DELETE", "/abdm/v1/profile", _profile),
        ("GET", "/abdm/v1/profile/asset/card", _card),
        ("GET", "/abdm/v1/profile/asset/qr", _qr),
        ("POST", "/abdm/v1/profile/kyc/(init|verify|resend)", _kyc),
        ("GET", "/dr/v1/(patient|appointment|doctor|business/clinic)/([^/]+)", _record),
        ("PUT", "/api/v1/vitals/([^/]+)", _vitals),
        ("GET", "/health/api/v1/fhir/retrieve", _bundle),
        ("GET", "/(?:voice-record/api|voice/api/v3)/status/([^/]+)", _transcript),
        ("GET HEAD", "/sandbox/bytes/([0-9]{1,11})", _bytes),
        ("GET HEAD POST PUT PATCH DELETE", "/sandbox/status/([0-9]{3})", _status),
    )
]
