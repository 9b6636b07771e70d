"""`config.example.yaml`: complete, true to the defaults, valid, and described by the schema."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from proxy import config
from proxy.config.settings import Listener, Route, Timeout
from proxy.credentials.bearer import BearerSettings
from proxy.credentials.eka import EkaSettings, Workspace
from proxy.credentials.eko import EkoSettings, HashRule, HeaderField
from proxy.model import ListenerTls, Model, Tls

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


@pytest.fixture
def settings() -> config.Settings:
    return config.load(EXAMPLE)


def shown(settings: config.Settings) -> list[Model]:
    """List the mappings that the example shows in full."""
    route, eka = settings.routes["eka"], settings.credentials["eka"]
    top = [settings.admin, settings.access, settings.log, settings.limits]
    return [settings, route, route.timeout, route.tls, eka, settings.credentials["eko"], *top]


def test_it_shows_every_key_with_its_default(settings: config.Settings) -> None:
    for model in shown(settings):
        for name, field in type(model).model_fields.items():
            assert name in model.model_fields_set, f"{type(model).__name__}.{name}"
            if not field.is_required() and name != "credentials":
                assert getattr(model, name) == field.default, f"{type(model).__name__}.{name}"


@pytest.mark.parametrize(
    "model", [BearerSettings, Workspace, HashRule, HeaderField, Listener, ListenerTls]
)
def test_what_it_cannot_show_live_stands_in_comments(model: type[Model]) -> None:
    for name in model.model_fields:
        assert re.search(rf"^ *#[ -]*{name}: ", TEXT, re.MULTILINE), name


def test_no_model_is_left_out(settings: config.Settings) -> None:
    def below(model: type[Model]) -> set[type[Model]]:
        return {model}.union(*(below(sub) for sub in model.__subclasses__()))

    known = {type(model) for model in shown(settings)} | {Route, Timeout, Tls}
    known |= {BearerSettings, Workspace, HashRule, HeaderField, EkaSettings, EkoSettings}
    known |= {Listener, ListenerTls}
    assert {m for m in below(Model) if m.model_fields} - known - set(
        Model.__subclasses__()
    ) == set()
    assert {m.__name__ for m in below(Model) - known} == {"Model", "CredentialSettings"}


def test_what_it_comments_out_is_valid_too(tmp_path: Path) -> None:
    text = TEXT.replace("    request_hash: null", "    #")
    for name in ("workspaces", "listeners", "keys"):
        text = text.replace(f"{name}: {{}}", f"{name}:")
    path = tmp_path / "c.yaml"
    path.write_text(
        re.sub(r"^( +)# ( *(?:- |[a-z_-]+:(?: |$)|\"127))", r"\1\2", text, flags=re.MULTILINE)
    )
    settings = config.load(path)
    assert isinstance(settings.credentials["eka-static"], BearerSettings)
    eka, eko = settings.credentials["eka"], settings.credentials["eko"]
    assert isinstance(eka, EkaSettings)
    assert list(eka.workspaces) == ["clinic-a"]
    assert isinstance(eko, EkoSettings)
    assert eko.request_hash is not None
    assert [rule.match.text for rule in eko.request_hash] == [
        "POST /**/billpayments/paybill",
        "POST /**/aeps",
    ]
    assert settings.listener(settings.routes["eka"].listen).tls is not None
    assert list(settings.access.keys) == ["billing-app"]


@pytest.fixture
def validator() -> jsonschema.Draft202012Validator:
    schema = config.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_the_example(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(TEXT))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("routs",), {}),
        (("routes",), {}),
        (("routes", "a b"), {"listen": "x", "upstream": "x", "credential": "x"}),
        (("routes", "eka", "timeout", "connect"), "5s"),
        (("routes", "eka", "timeout", "connect"), 0),
        (("credentials", "eka", "client_id"), 12345),
        (("credentials", "eka", "client_id"), {"env": "A", "file": "b"}),
        (("credentials", "eka", "kind"), "eck"),
        (("credentials", "none"), {"kind": "bearer", "token": "t"}),
        (("log", "level"), "loud"),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    validator: jsonschema.Draft202012Validator, path: tuple[str, ...], value: Any
) -> None:
    wrong = copy.deepcopy(yaml.safe_load(TEXT))
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not validator.is_valid(wrong)


def test_the_schema_writes_defaults_as_people_do() -> None:
    schema = config.schema()
    parts = schema["$defs"]
    assert parts["Admin"]["properties"]["listen"]["default"] == "127.0.0.1:8190"
    assert parts["EkaSettings"]["properties"]["login_url"]["default"] == "https://api.eka.care"
    access = {"hosts": [], "origins": [], "keys": {}, "uids": [], "unauthenticated": False}
    assert schema["properties"]["access"]["default"] == access
    assert json.loads(json.dumps(schema)) == schema


def test_the_schema_describes_every_key() -> None:
    schema = config.schema()
    for part in [schema, *schema["$defs"].values()]:
        for name, described in part["properties"].items():
            assert described.get("description"), name
