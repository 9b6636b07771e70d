"""From settings to credentials: each kind is made, and does what its kind does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from proxy import credentials
from proxy.addresses import parse_origin
from proxy.credentials import AnySettings, Passthrough, Tools
from proxy.credentials.bearer import Bearer
from proxy.credentials.eka import EkaTokens
from proxy.credentials.eko import EkoSignatures
from proxy.secrets import SecretError
from tests.credentials.support import ACCESS_KEY, lines_of, outgoing

if TYPE_CHECKING:
    from proxy.credentials.base import Credential

EKA = {"kind": "eka", "client_id": "canary-id", "client_secret": "canary-secret"}
BEARER = {"kind": "bearer", "token": "canary-token"}
EKO = {
    "kind": "eko",
    "environment": "staging",
    "developer_key": "canary-key",
    "access_key": ACCESS_KEY,
}
ANY: TypeAdapter[Any] = TypeAdapter(AnySettings, config=ConfigDict(hide_input_in_errors=True))


def build(raw: dict[str, Any], tools: Tools) -> Credential:
    return credentials.build("it", ANY.validate_python(raw), tools)


@pytest.mark.parametrize(
    ("raw", "kind"), [(EKA, EkaTokens), (BEARER, Bearer), (EKO, EkoSignatures)]
)
async def test_each_kind_is_made_of_its_settings(
    raw: dict[str, Any], kind: type[Credential], tools: Tools
) -> None:
    credential = build(raw, tools)
    assert type(credential) is kind
    assert credential.kind == raw["kind"]
    assert credential.catalogue is not None
    assert "canary" not in repr(credential)
    await credential.close()


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "eco"},
        {},
        EKO | {"environment": "canary"},
        EKO | {"kind": "eka"},
        BEARER | {"token": 5},
        BEARER | {"canary": 1},
        EKA | {"client_secret": "canary\n"},
        EKO | {"timestamps": "canary"},
    ],
)
def test_settings_of_no_kind_are_refused_without_being_quoted(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        ANY.validate_python(raw)
    assert "canary-" not in str(caught.value)


async def test_stamps_are_unique_unless_asked_otherwise(tools: Tools) -> None:
    unique, by_clock = build(EKO, tools), build(EKO | {"timestamps": "clock"}, tools)
    stamps = [
        lines_of(await credential.authorise(outgoing()))["secret-key-timestamp"]
        for credential in (unique, unique, by_clock, by_clock)
    ]
    assert stamps == ["1700000000000", "1700000000001", "1700000000000", "1700000000000"]


async def test_two_credentials_with_one_access_key_share_their_stamps(tools: Tools) -> None:
    first, second = build(EKO, tools), build(EKO | {"developer_key": "other"}, tools)
    sent = [await each.authorise(outgoing()) for each in (first, second, first)]
    stamps = [lines_of(each)["secret-key-timestamp"][-1] for each in sent]
    assert stamps == ["0", "1", "2"]


def test_a_secret_that_cannot_be_read_names_its_source(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(SecretError, match="NO_SUCH_TOKEN is not set"):
        build(BEARER | {"token": {"env": "NO_SUCH_TOKEN"}}, tools)


@pytest.mark.parametrize(
    ("url", "vendor"),
    [
        ("https://api.eka.care", "/dr/v1/patient/{patient_id}"),
        ("https://staging.eko.in:25004", "/{}/v1/{}/{}"),
        ("http://127.0.0.1:9000", "/{}/{}/{}/{}"),
    ],
)
async def test_no_credential_attaches_nothing_and_still_masks_paths(url: str, vendor: str) -> None:
    credential = Passthrough(parse_origin(url))
    sent = await credential.authorise(outgoing())
    assert sent.lines == b""
    assert await credential.again(outgoing(), sent, b"") is None
    assert credential.owned == {"jwt-payload"}
    assert credential.trouble() is None
    template = credential.catalogue.template("/dr/v1/patient/42") if credential.catalogue else None
    assert template == (vendor if "127.0.0.1" not in url else None)
    await credential.close()
