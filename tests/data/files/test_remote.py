"""Images behind addresses: fetched in parallel, again after failures, checked, and read offline once decoded."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.data.conftest import jpeg

import regraft as rg
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.image_file import read_file
from regraft.data.decode_all import decode_all
from regraft.data.files import archives
from regraft.data.files.remote import fetch, listing, web
from regraft.data.readable import with_readable
from regraft.errors import DataError

PHOTOS = {f"images/{number:03} ä.jpg": jpeg(number, 8, 10) for number in range(12)}
LIST = "".join(f"{path} {number % 2}\n" for number, path in enumerate(PHOTOS))


class Server:
    """A local server; `faults` makes the next answers for a path fail in some way."""

    def __init__(self) -> None:
        self.files = {f"/sets/{path}": data for path, data in PHOTOS.items()} | {"/sets/list.txt": LIST.encode()}
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.busiest = self.busy = 0
        self.delay = 0.0
        self.connections = 0
        self.hurry = self.deaf = self.has_no_head = False
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                from urllib.parse import unquote

                path = unquote(self.path)
                self.before = getattr(self, "before", -1) + 1
                if outer.deaf and self.before:  # the second on a connection
                    self.close_connection = True
                    return
                with outer._lock:
                    outer.asked[f"{self.command} {path}"] += 1
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                    faults = outer.faults.get(path, [])
                    fault = faults.pop(0) if faults and with_body else ""
                time.sleep(outer.delay)
                data = outer.files.get(path)
                try:
                    self.send(data, fault, with_body=with_body)
                finally:
                    with outer._lock:
                        outer.busy -= 1

            def send(self, data: bytes | None, fault: str, *, with_body: bool) -> None:
                if fault.startswith("to "):
                    self.send_response(302)
                    self.send_header("Location", fault.removeprefix("to "))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "drip":
                    self.drip()
                    return
                if outer.has_no_head and data is not None and (not with_body or "Range" in self.headers):
                    self.answer_in_parts(data, with_body=with_body)
                    return
                if fault == "packed" and data is not None:
                    data = gzip.compress(data)
                if fault.isdigit() or data is None:
                    self.send_response(int(fault) if fault else 404)
                    self.send_header("Content-Length", "0")
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                if fault == "packed":
                    self.send_header("Content-Encoding", "gzip")
                else:
                    self.send_header("ETag", f'"{hash(data)}"')
                self.end_headers()
                if fault == "stall":
                    time.sleep(1.5)
                if with_body:
                    self.wfile.write(data[: len(data) // 2] if fault in ("cut", "stall") else data)
                self.close_connection = outer.hurry or fault in ("cut", "stall")

            def answer_in_parts(self, data: bytes, *, with_body: bool) -> None:
                """Know no HEAD, and of an empty file no first byte."""
                part = data[:1] if with_body else b""
                self.send_response(405 if not with_body else 206 if data else 416)
                self.send_header("Content-Range", f"bytes 0-0/{len(data)}" if data else "bytes */0")
                self.send_header("Content-Length", str(len(part)))
                self.send_header("ETag", f'"{hash(data)}"')
                self.end_headers()
                self.wfile.write(part)

            def drip(self) -> None:
                """Never be silent, and never come to an end."""
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/sets/list.txt"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(web, "_SILENT_SECONDS", 0.5)
    made = Server()
    yield made
    made.close()


def local(folder: Path) -> Path:
    for path, data in PHOTOS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "list.txt").write_text(LIST)
    return folder / "list.txt"


def pixels(data: DataSet, cache: str = "disk") -> dict[str, Any]:
    _, caches = decode_all(data, PixelProgram((8, 8)), cache=cache)  # type: ignore[arg-type]
    return {name: [part.row(row) for row in range(len(part))] for name, part in caches.items()}


def relative(data: DataSet) -> dict[str, Any]:
    return {
        name: ([path.removeprefix(data.root + "/") for path in split.paths], split.labels.tolist())
        for name, split in data.splits.items()
    }


def test_a_list_over_http_is_the_list_on_the_disk(server: Server, tmp_path: Path) -> None:
    expected, found = rg.open_data(local(tmp_path / "local"), seed=2), rg.open_data(server.url, seed=2)
    assert relative(found) == relative(expected)
    assert found.fingerprint() == expected.fingerprint()
    assert (found.source, found.name) == (server.url, "list")
    for cache in ("disk", "off"):
        one, two = pixels(expected, cache), pixels(found, cache)
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not list((tmp_path / "cache").rglob("*.jpg"))


def test_once_decoded_it_is_read_offline(server: Server) -> None:
    data = rg.open_data(server.url)
    first = pixels(data)
    asked = server.asked.copy()
    assert all(np.array_equal(first[name], again) for name, again in pixels(rg.open_data(server.url)).items())
    assert server.asked - asked == {"GET /sets/list.txt": 1}
    server.close()
    archives._KNOWN.clear()  # as in a new process
    offline = rg.open_data(server.url)
    assert relative(offline) == relative(data)
    assert all(np.array_equal(first[name], again) for name, again in pixels(offline).items())


@pytest.mark.parametrize("fault", ["429", "503", "cut", "stall"])
def test_failures_that_pass_are_tried_again(server: Server, fault: str) -> None:
    data = rg.open_data(server.url)
    paths = list(PHOTOS)
    server.faults = {f"/sets/{path}": [fault] for path in paths[:3]}
    assert not with_readable(data).quarantined
    assert all(server.asked[f"GET /sets/{path}"] == 2 for path in paths[:3])


def test_failures_that_stay_are_told_by_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPTS", 2)
    data = rg.open_data(server.url)
    one, two, three, *_ = PHOTOS
    server.faults = {f"/sets/{one}": ["503"] * 9, f"/sets/{two}": ["cut"] * 9}
    server.files[f"/sets/{three}"] = jpeg(99, 8, 10)
    reasons = {item.path.rpartition("/")[2]: item.reason for item in with_readable(data).quarantined}
    assert reasons["000 ä.jpg"] == "cannot be fetched: the server answers 503 (2 attempts)"
    assert "cannot be fetched" in reasons["001 ä.jpg"]
    assert "is another file than when it was listed" in reasons["002 ä.jpg"]
    assert len(reasons) == 3
    del server.files[f"/sets/{one}"]
    monkeypatch.setattr(listing, "_FRESH_SECONDS", -1.0)
    with pytest.raises(DataError, match="cannot be used as a data set"):
        rg.open_data(server.url)


def test_many_files_are_fetched_at_once(server: Server) -> None:
    data = rg.open_data(server.url)
    server.busiest, server.delay = 0, 0.05
    began = time.monotonic()
    pixels(data, "off")
    assert server.busiest >= 4
    assert time.monotonic() - began < 12 * 0.05 * 2 + 5


def test_addresses_that_are_no_data_set(server: Server, tmp_path: Path) -> None:
    for url, text in (
        (server.url.replace("list.txt", "photos.zip"), "is an address of no list"),
        (server.url.replace("list.txt", "none.txt"), "404"),
        ("file://etc/passwd", "is not an address of images"),
        ("memory://nothing/here", "holds no files"),
        ("nosuch://x/y", "cannot be opened"),
        ("http://[::1/list.txt", "is no valid address"),
        ("memory://[", "is no valid address"),
    ):
        with pytest.raises(DataError) as caught:
            rg.open_data(url)
        assert text in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), TypeError("needs a repository")])
def test_a_store_that_connects_at_once(server: Server, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(DataError, match=f"cannot be opened .{error}"):
        rg.open_data("memory://pets")


def test_a_folder_of_a_store(server: Server, tmp_path: Path) -> None:
    """Any file system of fsspec; this one lies in memory."""
    store = fsspec.filesystem("memory")
    folder = tmp_path / "photos"
    for number, data in enumerate(PHOTOS.values()):
        for root in ("memory://pets/photos", str(folder)):
            path = f"{root}/{'cat' if number % 2 else 'dog'}/{number}.jpg"
            if root.startswith("memory"):
                store.pipe(path, data)
            else:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(data)
    expected, found = rg.open_data(folder), rg.open_data("memory://pets/photos")
    assert relative(found) == relative(expected)
    assert found.name == "photos"
    one, two = pixels(expected), pixels(found)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    store.rm("memory://pets/photos/cat", recursive=True)
    assert read_file(found.train.paths[0]) in (*PHOTOS.values(), "cannot be fetched: does not exist")
    with pytest.raises(DataError):
        rg.open_data("memory://pets/photos")


def test_a_listing_that_left_the_cache_is_made_again(server: Server, tmp_path: Path) -> None:
    data = rg.open_data(server.url)
    again = DataSet.from_dict(data.to_dict()).moved_to(server.url)
    shutil.rmtree(tmp_path / "cache")
    listing.local_source(again.source)  # as resuming a run does
    assert not with_readable(again).quarantined


def test_where_a_server_sends_to(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a.jpg 0\n")
    for target, text in ((secret.as_uri(), "none of HTTP"), ("/sets/list.txt", "without end")):
        server.faults = {"/sets/list.txt": [f"to {target}"] * 99}
        server.asked.clear()
        with pytest.raises(DataError, match=text):
            rg.open_data(server.url)
        assert server.asked["GET /sets/list.txt"] in (1, 21), "not tried again"
    server.faults = {"/sets/list.txt": ["to /sets/other.txt"]}
    server.files["/sets/other.txt"] = LIST.encode()
    assert len(rg.open_data(server.url).train) > 0


def test_connections_are_kept_and_those_that_broke_are_made_again(server: Server) -> None:
    data = rg.open_data(server.url)
    server.connections = 0
    assert sorted(map(read_file, data.train.paths)) == sorted(
        PHOTOS[path[path.index("images/") :]] for path in data.train.paths
    )
    assert server.connections <= 1, "those of the listing serve"
    server.hurry = True  # every connection is closed behind its first answer, without a word
    assert not with_readable(data).quarantined


def test_connections_of_which_the_server_knows_no_longer(server: Server) -> None:
    """As many as there are: what is tried again does not take the next of them."""
    server.delay, server.deaf = 0.1, True
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: fetch.fetch(server.url, 1 << 20), range(12)))
    assert fetch.fetch(server.url, 1 << 20)[0] == LIST.encode()


@pytest.mark.parametrize("code", ["204", "206", "302", "304"])
def test_an_answer_without_the_file_is_no_empty_file(server: Server, code: str) -> None:
    server.faults = {"/sets/list.txt": [code]}
    with pytest.raises(DataError, match=f"the server answers {code}"):
        rg.open_data(server.url)
    assert server.asked["GET /sets/list.txt"] == 1


def test_what_is_sent_packed_though_nobody_asked_is_unpacked(server: Server) -> None:
    path = f"/sets/{next(iter(PHOTOS))}"
    server.faults = {"/sets/list.txt": ["packed"], path: ["packed"]}
    assert not with_readable(rg.open_data(server.url)).quarantined
    assert server.asked[f"GET {path}"] == 1


def test_a_server_that_drips_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPTS", 1)
    server.faults = {"/sets/list.txt": ["drip"]}
    began = time.monotonic()
    with pytest.raises(DataError, match="the server stalls"):
        rg.open_data(server.url)
    assert time.monotonic() - began < 4


def test_threads_that_begin_together_share_their_connections(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    web._client.cache_clear()
    made: list[object] = []
    client = web.httpx2.Client

    def counted(**settings: Any) -> Any:
        made.append(settings)
        time.sleep(0.05)
        return client(**settings)

    monkeypatch.setattr(web.httpx2, "Client", counted)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fetch.fetch(server.url, 1 << 20), range(8)))
    assert len(made) == 1


def test_certificates_that_are_not_there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web._client.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(DataError, match="certificates that the environment names"):
        rg.open_data(server.url)


@pytest.mark.parametrize("proxy", ["host:port", "socks5://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used(server: Server, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    web._client.cache_clear()
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(DataError, match="proxy that the environment names"):
        rg.open_data(server.url)


def test_a_server_without_head(server: Server) -> None:
    first, *_ = PHOTOS
    server.has_no_head, server.files[f"/sets/{first}"] = True, b""
    data = with_readable(rg.open_data(server.url))
    assert [(item.path.rpartition("/")[2], item.reason) for item in data.quarantined] == [("000 ä.jpg", "is empty")]
