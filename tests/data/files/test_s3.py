"""A folder of a bucket, read through s3fs from a server that speaks S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from tests.conftest import Cli
from tests.data.conftest import jpeg

import regraft as rg
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.files import archives
from regraft.data.files.remote import fetch
from regraft.errors import DataError

pytestmark = pytest.mark.oracle
PHOTOS = {f"{('cat', 'dog')[number % 2]}/{number:03} ä.jpg": jpeg(number, 8, 10) for number in range(24)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """s3fs's file system of a server with `PHOTOS` in s3://pets/photos."""
    server_of = pytest.importorskip("moto.server", reason="moto is not installed; type `uv sync`")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed; type `uv sync`")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("REGRAFT_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fetch, "_WAIT_SECONDS", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("pets")
    for path, data in PHOTOS.items():
        system.pipe(f"pets/photos/{path}", data)
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # its buckets outlive it
    server.stop()


def folder_of_photos(tmp_path: Path) -> Path:
    for path, data in PHOTOS.items():
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(data)
    return tmp_path / "photos"


def pixels(data: DataSet) -> dict[str, Any]:
    _, caches = decode_all(data, PixelProgram((8, 8)), cache="disk")
    return {name: [part.row(row) for row in range(len(part))] for name, part in caches.items()}


def test_a_bucket_is_the_folder_offline_too(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, bucket = rg.open_data(folder_of_photos(tmp_path), seed=3), rg.open_data("s3://pets/photos", seed=3)
    assert bucket.fingerprint() == folder.fingerprint()
    one, two = pixels(folder), pixels(bucket)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(store).clear_instance_cache()
    archives._KNOWN.clear()  # as in a new process
    again = pixels(rg.open_data("s3://pets/photos", seed=3))
    assert all(np.array_equal(one[name], again[name]) for name in one)


def test_a_photo_that_changed_since_is_left_out_and_told(store: Any) -> None:
    data = rg.open_data("s3://pets/photos")
    one, two, *_ = PHOTOS
    other = type(store)(skip_instance_cache=True)  # what it writes, the first one does not know of
    other.pipe(f"pets/photos/{one}", PHOTOS[two].ljust(len(PHOTOS[one]), b"\0")[: len(PHOTOS[one])])
    other.rm(f"pets/photos/{two}")
    told, _ = decode_all(data, PixelProgram((8, 8)), cache="off")
    reasons = {item.path.rpartition("/")[2]: item.reason for item in told.quarantined}
    assert reasons == {
        "000 ä.jpg": "is another file than when it was listed (`regraft cache clear` lists it anew)",
        "001 ä.jpg": "cannot be fetched: does not exist",
    }


def test_buckets_that_are_not_there_or_closed(store: Any) -> None:
    for url, text in (("s3://none/photos", "holds no files"), ("s3://pets/photo", "holds no files")):
        with pytest.raises(DataError, match=text):
            rg.open_data(url)


def test_a_run_on_a_bucket_is_that_on_the_folder(store: Any, tmp_path: Path, cli: Cli) -> None:
    settings = ("--set=model.name=test_efficientnet", "--set=model.image_size=32", "--set=model.weights=none")
    stages = ("--set=stages.head.epochs=2", "--set=stages.head.optimizer=adamw")
    weights = []
    for source, out in ((folder_of_photos(tmp_path), "folder"), ("s3://pets/photos", "bucket")):
        done = cli("train", source, "--out", tmp_path / out, *settings, *stages)
        assert done.code == 0, done.err
        weights.append((tmp_path / out / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert cli("evaluate", tmp_path / "bucket").code == 0
    assert cli("resume", tmp_path / "bucket").code == 0
