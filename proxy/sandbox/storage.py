"""The stand-in of object storage: takes uploads from anybody, and credentials from nobody."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from proxy.sandbox.base import JOURNAL_LENGTH, StandIn
from proxy.sandbox.wire import Call, folded

if TYPE_CHECKING:
    from collections.abc import Callable

_CREDENTIALS: Final = frozenset(
    {
        "authorization",
        "auth",
        "client-id",
        "developer-key",
        "secret-key",
        "secret-key-timestamp",
        "request-hash",
    }
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored object: the file's own name in a form, the path of a PUT; size in bytes."""

    name: str
    size: int
    sha256: str


class StorageStandIn(StandIn):
    """Keeps the newest uploads' names and digests; `leaks` counts requests with credentials."""

    name: ClassVar[str] = "storage"

    def __init__(self, clock: "Callable[[], float]") -> None:
        super().__init__(clock)
        self.uploads: deque[Upload] = deque(maxlen=JOURNAL_LENGTH)
        self.leaks = 0

    def reset(self) -> None:
        """Return to how it was when it started."""
        super().reset()
        self.uploads.clear()
        self.leaks = 0

    def state(self) -> dict[str, Any]:
        """Return counters."""
        return super().state() | {"uploads": len(self.uploads), "leaks": self.leaks}

    def answer(self, call: Call) -> web.Response:
        """Store an upload; 400 when a credential came along, whatever else is right."""
        if any(folded(name) in _CREDENTIALS for name, _ in call.headers):
            self.leaks += 1
            return web.Response(status=400, text="a credential was sent to object storage")
        uploads = _uploads(call)
        if not uploads:
            return web.Response(status=400, text="expected a form with a file, or a PUT")
        self.uploads.extend(uploads)
        self.calls += 1
        return web.Response(status=204)


def _uploads(call: Call) -> list[Upload]:
    if call.method == "PUT":
        return [Upload(call.path, call.body.length, call.body.sha256)]
    if call.method != "POST" or call.media_type != "multipart/form-data":
        return []
    parts = [part for part in call.body.parts if part.filename is not None]
    return [Upload(part.filename or "", part.size, part.sha256) for part in parts]
