"""Every command, with mistakes of every kind: none of them shows a secret.

The one exception is what `headers` prints to stdout: that is what it is for. What a person writes
into the arguments of a command stands in the process list by that, and is not looked for.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from proxy import process
from proxy.cli import main
from tests.canaries.search import found_in
from tests.processes import ekeko

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

SECRETS = {
    "of an odd kind": "canary-4711\"\\<'%+&=~>?",
    "in hexadecimal": "c4ba5717e45f79c6f5109f848acd5405",
    "a UUID": "d2fe1d99-6298-4af2-8cc5-d97dcf46df31",
}
GOOD = """\
routes:
  a: {listen: "127.0.0.1:0", upstream: "https://x.eka.care", credential: c}
credentials:
  c: {kind: bearer, token: SECRET}
"""


def mistakes(secret: str) -> Iterator[str]:
    """Yield configurations in which a secret stands where it does not belong."""
    quoted = json.dumps(secret)
    places = (
        *("{%s: x}", "[%s]", "{env: %s}", "{file: %s}", "{evn: %s}", "{env: %s, file: x}"),
        *("%s, tokn: x", "!!int %s", "&a %s", "*a %s", "| %s", "%s}}", '"%s', "{a: {b: %s}}"),
    )
    for place in places:
        for spelling in (quoted, secret):
            yield GOOD.replace("SECRET", place.replace("%s", spelling))
    yield GOOD.replace("SECRET", f"{quoted}\n\t")
    yield GOOD.replace("{kind: bearer, token: SECRET}", quoted)
    yield GOOD.replace("token: SECRET", f"{quoted}: x")
    yield GOOD.replace("credential: c", f"credential: {quoted}").replace("SECRET", "t")
    yield GOOD.replace("https://x.eka.care", f"https://{secret[:12]}@x").replace("SECRET", "t")
    yield GOOD.replace("SECRET", "t").replace("c}", f"c, via: 'http://u:{secret[:6]}@x y'}}", 1)
    yield f"{quoted}\n"
    yield f"- {quoted}\n"
    yield f"routes: {quoted}\ncredentials: {quoted}\nadmin: {quoted}\n{quoted}: 1\n"


@pytest.mark.parametrize("kind", SECRETS)
def test_no_mistake_in_a_configuration_shows_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(process, "set_up_logging", lambda _: None)  # it is the tests' own here
    file = tmp_path / "config.yaml"
    here = ["-c", str(file)]
    statuses = []
    for text in mistakes(SECRETS[kind]):
        file.write_text(text)
        statuses.append(main(["check", *here]))
        assert main(["check", "--json", *here]) == statuses[-1]
        if statuses[-1] == 2:
            assert main(["run", *here]) == 2
            assert main(["headers", "c", *here]) == 2
        assert found_in("".join(capsys.readouterr()).encode(), SECRETS) == [], text
    assert statuses.count(2) > len(statuses) * 2 // 3


async def test_no_other_command_shows_it(tmp_path: Path) -> None:
    secret = SECRETS["of an odd kind"]
    file = tmp_path / "config.yaml"
    await asyncio.to_thread(file.write_text, GOOD.replace("SECRET", "{env: CANARY}"))
    here = ("-c", str(file))
    for words, expected in (
        (["version"], 0),
        (["schema"], 0),
        (["check", *here], 0),
        (["check", "--json", *here], 0),
        (["selftest", "--list"], 0),
        (["selftest", "--only", "who/foreign-host"], 0),
        (["selftest", "--only", "nobody"], 2),
        (["headers", "d", *here], 2),
        (["headers", "c", "--at", "1", *here], 2),
        (["headers", "c", "--field", "910842613377", *here], 2),
        (["run", "-c", str(tmp_path / "none.yaml")], 2),
        (["run", "--bogus", *here], 2),
        (["sandbox", "--bogus"], 2),
        ([], 2),
    ):
        async with ekeko(*words, CANARY=secret, EKEKO_CONFIG=str(file)) as running:
            status, out, err = await running.ended()
        assert status == expected, (words, err)
        assert found_in((out + err).encode(), {**SECRETS, "number": "910842613377"}) == [], words


async def test_headers_shows_what_it_is_asked_for_and_to_stdout_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    await asyncio.to_thread(file.write_text, GOOD.replace("SECRET", "{env: CANARY}"))
    secret = SECRETS["of an odd kind"]
    async with ekeko("headers", "c", "-c", str(file), CANARY=secret) as running:
        status, out, err = await running.ended()
    assert (status, err) == (0, "")
    assert f"auth: {secret}\n" in out


async def test_the_sandbox_takes_no_notice_of_secrets_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    await asyncio.to_thread(file.write_text, GOOD.replace("SECRET", "{env: CANARY}"))
    secret = SECRETS["of an odd kind"]
    async with ekeko("sandbox", CANARY=secret, EKEKO_CONFIG=str(file)) as running:
        await running.line()
        running.process.send_signal(signal.SIGTERM)
        status, out, err = await running.ended()
    assert status == 0
    assert "Paste these" in err
    assert found_in((out + err).encode(), SECRETS) == []
