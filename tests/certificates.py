"""Certificates for tests of either leg, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Authority(NamedTuple):
    """A certificate authority made for a test, and certificates from it."""

    folder: Path
    ca: str

    def issue(self, name: str, san: str | None = None, *, days: int = 2) -> tuple[str, str]:
        """Make a certificate, of this common name, and its key."""
        cert, key, request, ext = (
            str(self.folder / f"{name}.{kind}") for kind in ("pem", "key", "csr", "ext")
        )
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={san}\n" if san else "")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", f"{self.ca}.key"),
            *("-CAcreateserial", "-days", str(days), "-extfile", ext, "-out", cert),
        )
        return cert, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def found_in(folder: Path) -> Authority:
    """Make an authority whose files are in a folder."""
    ca = str(folder / "ca.pem")
    extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", f"{ca}.key", "-out", ca, "-days", "2"),
        *("-subj", "/CN=Test CA", *extensions),
    )
    return Authority(folder, ca)
