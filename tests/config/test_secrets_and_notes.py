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
SHARED = "in a file that other users may read: expected mode 0600"
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
access: {unauthenticated: true}
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


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_may_read_is_noted(load: Load, tmp_path: Path, mode: int) -> None:
    files = tmp_path / "secret.txt", tmp_path / "key.pem"
    for file in files:
        file.write_text("canary")
        file.chmod(mode)
    settings = load("""\
    routes:
      a:
        listen: 127.0.0.1:1
        upstream: https://api.eka.care
        credential: e
        tls: {cert: c.yaml, key: key.pem}
    credentials:
      e: {kind: eka, client_id: canary-literal, client_secret: {file: secret.txt}}
    """)
    (tmp_path / "c.yaml").chmod(mode)
    assert [str(note).removeprefix("c.yaml:") for note in config.notes(settings)] == [
        "6:30: routes.a.tls.key: is a file that other users may read: expected mode 0600",
        f"8:29: credentials.e.client_id: is {SHARED}",
        f"8:60: credentials.e.client_secret: is {SHARED}",
    ]
    for file in (*files, tmp_path / "c.yaml"):
        file.chmod(0o600)
    assert config.notes(settings) == []


def test_what_somebody_else_mounts_is_not_noted(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load("""\
    routes:
      a: {listen: 127.0.0.1:1, upstream: https://api.eka.care, credential: e}
    credentials:
      e: {kind: bearer, token: canary-literal}
    """)
    (tmp_path / "c.yaml").chmod(0o644)
    monkeypatch.setattr("os.geteuid", lambda: -1)
    assert config.notes(settings) == []


PLAIN = "takes keys over the network as plain text: 'listeners' can give it TLS"
UNUSABLE = "the certificate c.yaml with the key c.yaml cannot be used (SSLError)"
ACCESS_TEXT = """\
routes:
  a: {listen: 0.0.0.0:1, upstream: https://m.example, credential: none}
  b: {listen: 0.0.0.0:2, upstream: https://m.example, credential: none}
  c: {listen: 0.0.0.0:3, upstream: https://m.example, credential: none}
access:
  keys: {a: {file: secret.txt}, b: {env: CANARY_TOKEN}}
listeners:
  0.0.0.0:2: {tls: {cert: c.yaml, key: c.yaml}}
  0.0.0.0:3: {tls: {cert: none.pem, key: c.yaml, client_ca: none.ca}}
"""


def test_notes_tell_what_may_not_work_for_callers(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary")
    settings = load(ACCESS_TEXT)
    (tmp_path / "c.yaml").chmod(0o600)
    assert [str(note).removeprefix("c.yaml:") for note in config.notes(settings)] == [
        f"2:15: routes.a.listen: {PLAIN}",
        f"6:13: access.keys.a: {GONE}",
        "6:36: access.keys.b: is too short: expected 16 characters or more",
        f"8:20: listeners.0.0.0.0:2.tls: will not do: {UNUSABLE}",
        "9:27: listeners.0.0.0.0:3.tls.cert: names a file that is not there",
        "9:61: listeners.0.0.0.0:3.tls.client_ca: names a file that is not there",
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
