"""A process that serves: the event loop, logging, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import TracebackType

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_DESCRIPTORS_TO_SPARE = 64
_IN_CALLBACK = "Exception in callback"  # behind it asyncio shows the arguments
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on uvloop, or the standard loop where that is not installed."""

    async def watched() -> Result:
        asyncio.get_running_loop().set_exception_handler(_tell_of_the_loop)
        return await main

    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(watched())
    return uvloop.run(watched())


def set_up_logging(level: str, *, who: str = "") -> None:
    """Send the program's own log to stderr; stdout is the access log's. May be called again.

    `who` tells processes apart that write to one stderr.
    """
    handler = logging.StreamHandler(sys.stderr)
    form = f"%(asctime)s %(levelname)s {who and f'{who}: '}%(name)s: %(message)s"
    handler.setFormatter(_Discreet(form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What these say below that quotes what callers sent.
    for name, least in (("aiohttp", logging.WARNING), ("asyncio", logging.ERROR)):
        logging.getLogger(name).setLevel(max(least, logging.root.level))
    sys.excepthook = _tell_of_the_end


class _Discreet(logging.Formatter):
    """Tells what an exception is and where it was raised, not what it says, which may be secret."""

    def formatException(  # noqa: N802 - logging's own name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        parts, error = [], ei[1]
        while error is not None:
            at = "".join(traceback.format_tb(error.__traceback__))
            why = error.strerror if isinstance(error, OSError) else None
            parts.append(f"{at}{type(error).__qualname__}{(why and f': {why}') or ''}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\nas this was dealt with:\n".join(reversed(parts))


def _tell_of_the_end(
    kind: type[BaseException], error: BaseException, at: TracebackType | None
) -> None:
    logger.critical("it failed unexpectedly", exc_info=(kind, error, at))


def _tell_of_the_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught, without the arguments of a callback or the result of a task."""
    message = str(context["message"])
    if message.startswith(_IN_CALLBACK):
        message = _IN_CALLBACK
    logger.error("%s", message, exc_info=context.get("exception"))


class StdoutWriter:
    """Writes lines in a thread of its own: a reader that stalls or leaves stalls nothing here.

    What is not written yet is bounded; beyond that lines are dropped, and their number is logged.
    Where several processes write, each write is `at_most` so many bytes of whole lines, and one
    that is `held` begins with `release`.
    """

    def __init__(
        self, *, blocks_at_most: int = 256, at_most: int | None = None, held: bool = False
    ) -> None:
        self._at_most = at_most
        self._may_write = threading.Event()
        if not held:
            self.release()
        self._blocks: queue.Queue[str | Callable[[], None] | None] = queue.Queue(blocks_at_most)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, lines: str) -> None:
        """Have whole lines written."""
        try:
            self._blocks.put_nowait(lines)
        except queue.Full:
            self._dropped += lines.count("\n")
        else:
            if self._dropped:
                logger.warning("%d lines of the access log were dropped", self._dropped)
                self._dropped = 0

    def release(self) -> None:
        """Begin to write."""
        self._may_write.set()

    async def written(self) -> None:
        """Wait until all that was given so far has been written, or lost."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done.set)

        self._blocks.put_nowait(tell)
        await done.wait()

    def close(self, timeout: float = 2.0) -> None:
        """Write the rest, for so many seconds at most."""
        self.release()
        with contextlib.suppress(queue.Full):
            self._blocks.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _run(self) -> None:
        self._may_write.wait()
        while (lines := self._blocks.get()) is not None:
            if not isinstance(lines, str):
                lines()
                continue
            try:
                for piece in [lines] if self._at_most is None else pieces(lines, self._at_most):
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            except BrokenPipeError:
                leave_stdout()
            except (OSError, ValueError) as error:
                logger.warning("lines of the access log are lost: %s", error)


def pieces(lines: str, at_most: int) -> Iterator[str]:
    """Cut between lines, so that a piece has `at_most` so many bytes, or is one line that has more.

    The lines are ASCII.
    """
    piece = ""
    for line in lines.splitlines(keepends=True):
        if piece and len(piece) + len(line) > at_most:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def leave_stdout() -> None:
    """Have later writes go nowhere: its reader has gone, and Python would complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def raise_descriptor_limit(connections: int) -> None:
    """Ask for as many file descriptors as the configured connections need."""
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _DESCRIPTORS_TO_SPARE
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # the system's own bound is below `hard`
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@contextlib.contextmanager
def no_authorities() -> Iterator[None]:
    """Keep OpenSSL from reading the system's authorities while imports go on, a fifth of a start.

    aiohttp makes two TLS contexts as it is imported, for requests that name none. Ours all do, by
    `proxy.tls`, once this is over; one that did not would trust nobody.
    """
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def keep_memory_private() -> None:
    """Write no core, and let no other program of this user read memory or attach (prctl(2)).

    Workers inherit the first alone. Where the system knows no such thing, nothing happens.
    """
    import resource  # noqa: PLC0415 - not on every system

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Where memory that is both writable and executable is forbidden, this may not load.
        with contextlib.suppress(ImportError, OSError, AttributeError, MemoryError):
            import ctypes  # noqa: PLC0415 - for this alone

            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class Serving(Protocol):
    """What signals act on."""

    def stop(self) -> None:
        """Begin to drain."""
        ...

    def do_meanwhile(self, chore: Coroutine[Any, Any, None]) -> None:
        """Run a task for as long as it serves."""
        ...


def handle_signals(
    app: Serving, *, reload: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> None:
    """Let SIGTERM and SIGINT drain the proxy, and SIGHUP read its configuration again.

    To be called before the proxy starts: a signal that comes early is not lost. One reload is
    under way at a time, and a SIGHUP meanwhile asks for one more.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    async def reload_when_asked() -> None:
        while reload is not None:
            await asked.wait()
            asked.clear()
            await reload()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    app.do_meanwhile(reload_when_asked())
