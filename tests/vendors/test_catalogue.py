"""Paths become templates: nobody's number survives."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.vendors import eka, eko
from proxy.vendors.catalogue import Catalogue, rows

EKA = sorted({row["path"] for row in rows("eka")})
EKO = sorted({base + row["path"] for base in ("/ekoapi/v3", "/ekoicici/v3") for row in rows("eko")})
IDS = ["42", "1234-5678", "asha.rao@abdm", "9962981729", "ifsc:KKBK0000261", "a b", "é", "{}", "-"]
VARIABLE = re.compile(r"\{[^}]*\}")
SAMPLES = [(eka.CATALOGUE, path) for path in EKA] + [(eko.CATALOGUE, path) for path in EKO]


@pytest.mark.parametrize(("catalogue", "template"), SAMPLES, ids=lambda value: str(value)[-40:])
def test_every_documented_operation_is_known_by_its_template(
    catalogue: Catalogue, template: str
) -> None:
    for value in IDS:
        assert catalogue.template(VARIABLE.sub(value, template)) == template


def test_both_lists_are_whole() -> None:
    assert (len(rows("eka")), len(rows("eko"))) == (239, 84)


SEGMENTS = st.text(st.characters(exclude_characters="/"), max_size=12)
PATHS = st.lists(SEGMENTS | st.sampled_from(["dr", "v1", "patient", ""]), max_size=8).map(
    lambda segments: "/" + "/".join(segments)
)


@given(st.sampled_from([eka.CATALOGUE, eko.CATALOGUE]), PATHS, PATHS)
def test_no_id_survives_wherever_it_stands(catalogue: Catalogue, before: str, after: str) -> None:
    for canary in ("canary-4711", "41111111", "asha@canary"):
        path = f"{before.rstrip('/')}/{canary}{after}"
        assert canary not in catalogue.template(path)


@given(st.sampled_from(SAMPLES), st.integers(0, 12))
def test_no_id_survives_in_a_path_near_a_documented_one(
    sample: tuple[Catalogue, str], at: int
) -> None:
    catalogue, template = sample
    segments = VARIABLE.sub("canary-4711", template).split("/")
    segments.insert(min(at, len(segments)), "canary-4711")
    assert "canary" not in catalogue.template("/".join(["", *segments[1:]]))


@given(st.sampled_from([eka.CATALOGUE, eko.CATALOGUE]), PATHS)
def test_only_words_of_the_vendors_own_are_shown(catalogue: Catalogue, path: str) -> None:
    shown = catalogue.template(path)
    known = (
        {"{}"}
        | {segment for _, template in SAMPLES for segment in template.split("/")}
        | catalogue._words
    )
    assert set(shown.split("/")) <= known
    assert shown.startswith("/")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/dr/v1/patient/42/notes", "/dr/v1/patient/{}/{}"),
        ("/DR/v1/patient/42", "/{}/v1/patient/{}"),
        ("/dr/v1/patient/", "/dr/v1/patient/"),
        ("/dr/v1/patient/42/", "/dr/v1/patient/{}/"),
        ("/", "/"),
        ("/42", "/{}"),
        ("/dr/v1/appointment/patient/7", "/dr/v1/appointment/patient/{patient_id}"),
        ("/dr/v1/appointment/patient", "/dr/v1/appointment/{appointment_id}"),
        ("/appointments/v1/ipd/reschedule", "/appointments/v1/{appointment_id}/reschedule"),
        ("/cdr/v1/clinic/", "/cdr/v1/clinic/"),
        ("/cdr/v1/clinic", "/cdr/v1/clinic"),
    ],
)
def test_unknown_parts_are_masked_and_dead_ends_left(path: str, shown: str) -> None:
    assert eka.CATALOGUE.template(path) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/ekoapi/v2/billpayments/paybill", "/ekoapi/v2/billpayments/paybill"),
        ("/ekoicici/v2/aeps", "/ekoicici/v2/aeps"),
        ("/ekoapi/v1/agent/user_code:20810200/settlement", "/ekoapi/v1/agent/{}/settlement"),
        ("/ekoapi/v1/transactions/2147591837", "/ekoapi/v1/transactions/{}"),
        (
            "/ekoapi/v1/customers/mobile_number:9962981729/recipients",
            "/ekoapi/v1/customers/{}/recipients",
        ),
        ("/ekoapi/v2/banks/ifsc:KKBK0000261/accounts/1234", "/ekoapi/v2/banks/{}/accounts/{}"),
        ("/ekoapi/v3/user/account/balance/190/x", "/ekoapi/v3/user/account/balance/{}/{}"),
    ],
)
def test_older_calls_of_eko_are_masked_too(path: str, shown: str) -> None:
    assert eko.CATALOGUE.template(path) == shown


def test_a_path_made_to_explode_does_not() -> None:
    deep = "/dr/v1/" + "patient/" * 50_000
    assert eka.CATALOGUE.template(deep) == "/{}"


def test_an_empty_catalogue_masks_everything() -> None:
    assert Catalogue([]).template("/a/1/") == "/{}/{}/"
