"""Forty requests of bad clients: each gets an answer that says what is wrong, and the server lives on."""

from __future__ import annotations

import json
import socket
import struct
import time
import zlib
from collections.abc import Callable

import pytest
from tests.conftest import photo
from tests.serving.conftest import Server

Sent = bytes | list[bytes]


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header states this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def post(body: bytes, path: str = "/predict", *more: str, kind: str = "image/png", length: int | None = None) -> bytes:
    """A request, its length as stated."""
    stated = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {stated}", *more]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(path: str, *more: str, host: str = "localhost", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *more]).encode("latin-1") + b"\r\n\r\n"


def part(data: bytes, disposition: str = 'name="image"; filename="a.png"') -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"


FORM = "multipart/form-data; boundary=x"
BOMB = png(30_000, 30_000, zlib.compress(b"\0" * 3_000_000))
GIF = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0\0\0\0\xff\xff\xff,"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

# name -> (what is sent, possible statuses)
HOSTILE: dict[str, tuple[Callable[[bytes], Sent], set[int]]] = {
    "a bomb of 900 megapixels": (lambda good: post(BOMB), {413, 422}),
    "a bomb just above the limit": (lambda good: post(png(1001, 1000, zlib.compress(b"\0" * 10_000))), {413}),
    "a bomb in a batch": (lambda good: post(part(BOMB) + b"--x--", "/predict/batch", kind=FORM), {200}),
    "a GIF of 65,535 squared": (lambda good: post(GIF, kind="image/gif"), {413, 422}),
    "a size of nothing": (lambda good: post(png(0, 0)), {422}),
    "pixels that are missing": (lambda good: post(png(100, 100, zlib.compress(b"\0" * 50))), {422}),
    "half an image": (lambda good: post(good[: len(good) // 2]), {422}),
    "a header alone": (lambda good: post(good[:24]), {422}),
    "one byte": (lambda good: post(b"\x89"), {422}),
    "nothing": (lambda good: post(b""), {400}),
    "zeros": (lambda good: post(bytes(100_000)), {422}),
    "a program": (lambda good: post(b"\x7fELF" + bytes(1000)), {422}),
    "an archive": (lambda good: post(b"PK\x03\x04" + bytes(1000)), {422}),
    "a vector image that names a file": (lambda good: post(SVG, kind="image/svg+xml"), {422}),
    "PostScript": (lambda good: post(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), {422}),
    "a pickle": (lambda good: post(b"\x80\x04cos\nsystem\n(S'true'\ntR."), {422}),
    "JSON": (lambda good: post(b"{}", kind="application/json"), {415}),
    "a form of text": (lambda good: post(b"a=b", kind="application/x-www-form-urlencoded"), {415}),
    "a form without a file": (lambda good: post(part(b"x", 'name="image"') + b"--x--", kind=FORM), {400}),
    "a form without a boundary": (lambda good: post(b"x", kind="multipart/form-data"), {400}),
    "a form that does not end": (lambda good: post(part(good), kind=FORM), {200, 400}),
    "a form of noise": (lambda good: post(bytes(range(256)) * 9, kind=FORM), {400}),
    "forty files": (lambda good: post(part(b"x") * 40 + b"--x--", "/predict/batch", kind=FORM), {400, 413}),
    "two files for one": (lambda good: post(part(good) * 2 + b"--x--", kind=FORM), {400}),
    "a part with huge headers": (
        lambda good: post(b"--x\r\nA: " + b"b" * 200_000 + b"\r\n\r\nx\r\n--x--", kind=FORM),
        {400},
    ),
    "a file name that climbs": (
        lambda good: post(part(good, 'name="image"; filename="../../etc/passwd"') + b"--x--", kind=FORM),
        {200},
    ),
    "a file name of noise": (
        lambda good: post(part(good, 'name="\\0"; filename="\x00\x1b[31m\u202e"') + b"--x--", kind=FORM),
        {200, 400},
    ),
    "more than is allowed": (lambda good: post(bytes(1_100_000)), {413}),
    "a length of a terabyte": (lambda good: post(b"x", length=10**12), {413}),
    "a length that is none": (lambda good: post(b"").replace(b"Length: 0", b"Length: -1"), {400}),
    "chunks that never end": (lambda good: [CHUNKED, *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 20], {413}),
    "a chunk that lies": (lambda good: CHUNKED + b"zz\r\nx\r\n", {400}),
    "a path that climbs": (lambda good: get("/../../etc/passwd"), {404}),
    "an encoded path that climbs": (lambda good: get("/%2e%2e%2f%2e%2e%2fetc%2fpasswd%00"), {404}),
    "another server's address": (lambda good: get("http://elsewhere.example/"), {200, 403, 404}),
    "a method of its own": (lambda good: get("/predict", method="BREW"), {405}),
    "huge headers": (lambda good: get("/healthz", "A: " + "b" * 100_000), {400, 431}),
    "ten thousand headers": (lambda good: get("/healthz", *["A: b"] * 10_000), {400, 431}),
    "another host's name": (lambda good: get("/", host="rebound.example"), {403}),
    "a page of others": (lambda good: post(good, "/predict", "Origin: http://elsewhere.example"), {403}),
    "no HTTP at all": (lambda good: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
    "a body that never comes": (lambda good: post(b"half", length=1000), {408}),
    "headers that never end": (lambda good: [b"GET / HTTP/1.1\r\n", *[b"A: b\r\n"] * 3], {408}),
    "silence": (lambda good: b"", {408}),
}


def answer(server: Server, sent: Sent) -> tuple[int, bytes]:
    """Return status and body of what comes back until the server ends the connection, or has said all."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        try:
            for piece in [sent] if isinstance(sent, bytes) else sent:
                connection.sendall(piece)
        except OSError:
            pass  # it has heard enough
        given = b""
        try:
            while b"\r\n\r\n" not in given or len(given.partition(b"\r\n\r\n")[2]) < length_of(given):
                more = connection.recv(65536)
                if not more:
                    break
                given += more
        except ConnectionResetError:
            pass
    head, _, body = given.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def length_of(given: bytes) -> int:
    lines = given.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return photo(tmp_path_factory.mktemp("good") / "a.png", (40, 60, 200), 1).read_bytes()


def test_there_are_forty() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_request_is_told_what_is_wrong(server: Server, good: bytes, name: str) -> None:
    make, expected = HOSTILE[name]
    status, body = answer(server, make(good))
    assert status in expected, body[:300]
    if status != 200:
        told = json.loads(body)["error"]
        assert told["type"]
        assert told["message"]
    assert answer(server, post(good))[0] == 200, "the server does not answer any more"


def test_slow_clients_take_nobodys_place(server: Server, good: bytes) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        assert answer(server, post(good))[0] == 200
        assert time.monotonic() - began < 2
        time.sleep(2.5)
        assert all(connection.recv(100).startswith(b"HTTP/1.1 408") for connection in slow)
    finally:
        for connection in slow:
            connection.close()
