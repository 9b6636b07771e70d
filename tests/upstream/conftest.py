"""Certificates for tests of the upstream leg."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Authority(NamedTuple):
    """A certificate authority made for a test, and certificates from it."""

    folder: Path
    ca: str

    def issue(self, name: str, san: str) -> tuple[str, str]:
        """Make a certificate and its key."""
        cert, key, request, ext = (
            str(self.folder / f"{name}.{kind}") for kind in ("pem", "key", "csr", "ext")
        )
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", f"{self.ca}.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", ext, "-out", cert),
        )
        return cert, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    folder = tmp_path_factory.mktemp("ca")
    ca = str(folder / "ca.pem")
    extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", f"{ca}.key", "-out", ca, "-days", "2"),
        *("-subj", "/CN=Test CA", *extensions),
    )
    return Authority(folder, ca)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[str, str]:
    return authority.issue("localhost", "DNS:localhost")
