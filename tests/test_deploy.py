"""`deploy/`: what people copy has to work as it stands."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from proxy import config

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def configurations() -> Iterator[tuple[str, str]]:
    """Find every ekeko configuration, inside other files as well."""
    yield "systemd", (DEPLOY / "systemd-config.yaml").read_text(encoding="utf-8")
    [compose] = documents("docker-compose.yaml")
    yield "compose", compose["configs"]["ekeko"]["content"]
    yield "kubernetes", documents("kubernetes-sidecar.yaml")[0]["data"]["config.yaml"]


@pytest.fixture(params=configurations(), ids=lambda found: found[0])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> config.Settings:
    path = tmp_path / "config.yaml"
    path.write_text(request.param[1])
    return config.load(path)


def test_configurations_listen_on_loopback_alone(settings: config.Settings) -> None:
    assert {route.listen.host for route in settings.routes.values()} == {"127.0.0.1"}
    assert str(settings.admin.listen) == "127.0.0.1:8190"


def test_no_secret_is_written_out(settings: config.Settings) -> None:
    sources = [(secret.kind, secret.source) for _, secret in settings.secrets()]
    assert sources
    assert all(kind == "file" and path.startswith("/run/") for kind, path in sources)


def test_compose_shares_the_app_s_network_and_publishes_no_port() -> None:
    [compose] = documents("docker-compose.yaml")
    ekeko = compose["services"]["ekeko"]
    assert ekeko["network_mode"] == "service:app"
    assert "ports" not in ekeko
    assert set(ekeko["secrets"]) == set(compose["secrets"])
    content = compose["configs"]["ekeko"]["content"]
    assert set(re.findall(r"/run/secrets/(\w+)", content)) == set(ekeko["secrets"])


def test_the_pod_s_probes_stay_on_loopback() -> None:
    [_, deployment] = documents("kubernetes-sidecar.yaml")
    [ekeko] = deployment["spec"]["template"]["spec"]["initContainers"]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        python, flag, program, url = ekeko[name]["exec"]["command"]
        assert (python, flag) == ("python", "-c")
        compile(program, name, "exec")
        assert url.startswith("http://127.0.0.1:8190/")
    assert ekeko["restartPolicy"] == "Always"


def test_the_unit_loads_what_its_configuration_reads() -> None:
    text = (DEPLOY / "ekeko.service").read_text(encoding="utf-8")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert unit["Service"]["ExecStart"].endswith("/ekeko run -c /etc/ekeko/config.yaml")
    wanted = (DEPLOY / "systemd-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE)) == set(
        re.findall(r"/run/credentials/ekeko\.service/(\w+)", wanted)
    )


def test_the_image_starts_as_documented() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    last = dict(re.findall(r"^(ENTRYPOINT|CMD|USER) (.+)$", text, re.MULTILINE))
    assert json.loads(last["ENTRYPOINT"]) == ["ekeko"]
    assert json.loads(last["CMD"]) == ["run", "-c", "/etc/ekeko/config.yaml"]
    assert last["USER"] == "10001:10001"
