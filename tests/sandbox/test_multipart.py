"""The multipart scanner, fed in chunks of every size."""

import hashlib

import pytest

from proxy.sandbox.multipart import Part, PartScanner

BODY = (
    b"preamble\r\n--b\r\n"
    b'Content-Disposition: form-data; name="form-data"\r\n\r\n{"a":1}\r\n--b\r\n'
    b'Content-Disposition: form-data; filename="x.bin"; name="file"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    b"\r\n--a\r\n--\r\n\r\n--b--\r\nepilogue"
)


def part(name: str, filename: str | None, content: bytes) -> Part:
    return Part(name, filename, len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_parts_do_not_depend_on_the_chunks(size: int) -> None:
    scanner = PartScanner("b")
    for start in range(0, len(BODY), size):
        scanner.feed(BODY[start : start + size])
    assert scanner.closed
    assert scanner.parts == [
        part("form-data", None, b'{"a":1}'),
        part("file", "x.bin", b"\r\n--a\r\n--\r\n"),
    ]


def test_a_body_without_its_end_is_not_closed() -> None:
    scanner = PartScanner("b")
    scanner.feed(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut off')
    assert not scanner.closed
    assert scanner.parts == []


def test_a_head_without_end_is_given_up() -> None:
    scanner = PartScanner("b")
    scanner.feed(b"--b" + b"x" * 20_000)
    assert scanner.closed
    assert scanner.parts == []
