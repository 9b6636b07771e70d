"""What depends on the machine: notes never fail a check, missing secrets do fail a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy import config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], config.Settings]

OPEN = "is open to other machines, and whoever reaches it has your credentials"
GONE = "the file secret.txt cannot be read (No such file or directory)"
TEXT = """\
routes:
  a:
    listen: 0.0.0.0:8180
    upstream: https://api.eka.care
    credential: e
    strip_prefix: true
    tls: {ca: none.pem, cert: c.yaml, key: none.key}
    via: {env: CANARY_VIA}
credentials:
  e:
    kind: eka
    client_id: canary-literal
    client_secret: {file: secret.txt}
    tls: {ca: c.yaml}
  idle: {kind: bearer, token: {env: CANARY_TOKEN}}
admin: {listen: "[::]:8190"}
"""


def test_notes_tell_what_may_not_work_here_and_now(load: Load) -> None:
    assert [str(note).removeprefix("c.yaml:") for note in config.notes(load(TEXT))] == [
        f"3:13: routes.a.listen: {OPEN}",
        "6:19: routes.a.strip_prefix: has no effect, as the prefix is '/'",
        "7:15: routes.a.tls.ca: names a file that is not there",
        "7:44: routes.a.tls.key: names a file that is not there",
        "8:10: routes.a.via: the environment variable CANARY_VIA is not set",
        f"13:20: credentials.e.client_secret: {GONE}",
        "15:3: credentials.idle: is used by no route",
        "15:31: credentials.idle.token: the environment variable CANARY_TOKEN is not set",
        f"16:17: admin.listen: {OPEN}",
    ]


def test_a_quiet_configuration_has_no_notes(load: Load) -> None:
    text = """\
    routes:
      a: {listen: unix:/tmp/s, upstream: https://x.example, credential: none, prefix: /a}
    admin: {listen: null}
    """
    assert config.notes(load(text)) == []


def test_every_secret_that_there_is_not_fails_a_start_at_its_place(load: Load) -> None:
    settings = load(TEXT)
    with pytest.raises(config.ConfigError) as refused:
        config.resolve(settings)
    assert [(p.line, p.key) for p in refused.value.problems] == [
        (8, "routes.a.via"),
        (13, "credentials.e.client_secret"),
        (15, "credentials.idle.token"),
    ]
    assert "is not set: expected a secret there" in str(refused.value)


def test_secrets_that_are_there_are_read(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(TEXT)
    (tmp_path / "secret.txt").write_text("canary-file\n")
    monkeypatch.setenv("CANARY_TOKEN", "canary-token")
    monkeypatch.setenv("CANARY_VIA", "http://user:canary-via@proxy:3128")
    config.resolve(settings)
    found = {path: secret.reveal() for path, secret in settings.secrets()}
    assert found[("credentials", "e", "client_secret")] == "canary-file"
    assert "canary" not in repr(settings)


def test_an_outbound_proxy_from_elsewhere_is_a_proxy_too(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_VIA", "canary-via:3128")
    with pytest.raises(config.ConfigError) as refused:
        config.resolve(load(TEXT))
    assert "routes.a.via: is not a proxy's URL: expected http://" in str(refused.value)
    assert "canary-via" not in repr(refused.value)
