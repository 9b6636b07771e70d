"""`python -m tests.fuzz TARGET SECONDS`: fuzzes one target; `scripts/fuzz` starts it.

Exit status: 0 if nothing was found, else that of whoever found it.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.fuzz.examples import TARGETS, Target, examples, load

try:
    import atheris
except ImportError:
    atheris = None

_FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
_INSTRUMENTED = ["proxy", "h11", "tests.fuzz"]
_LONGEST = 1024  # bytes of an input


def main(name: str, seconds: int) -> None:
    """Fuzz a target for some seconds."""
    if atheris is not None:
        _with_atheris(name, seconds)
    else:
        _with_hypothesis(name, seconds)


def _with_atheris(name: str, seconds: int) -> None:
    with atheris.instrument_imports(include=_INSTRUMENTED):
        target = load(name)
    corpus = _FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = _FOLDER / f"{name}.words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-dict={words}",
        f"-artifact_prefix={_FOLDER}/{name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(corpus)], partial(_try, target))
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _with_hypothesis(name: str, seconds: int) -> None:
    target, count = load(name), 0
    until = time.monotonic() + seconds

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(examples(target))
    def some(data: bytes) -> None:
        nonlocal count
        count += 1
        _try(target, data)

    while time.monotonic() < until:
        some()
    print(f"{name}: {count} inputs by hypothesis", file=sys.stderr)


def _try(target: Target, data: bytes) -> None:
    try:
        target.run(data)
    except BaseException:
        print(f"This input fails; make it a test:\n{data!r}", file=sys.stderr)
        raise


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS or not sys.argv[2].isdigit():
        sys.exit(f"usage: python -m tests.fuzz {{{'|'.join(TARGETS)}}} SECONDS")
    main(sys.argv[1], int(sys.argv[2]))
