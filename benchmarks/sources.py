"""What an archive costs beside the folder that was packed: first and second epoch, and the index of a large one.

    uv run python benchmarks/sources.py [--images 400] [--members 1000000] [--mbit 100] [--milliseconds 50]

First: decode every image into the cache on the disk, from a folder, .zip, .tar, .tar.gz and .parquet of the same JPEGs
of 500 x 375 pixels (the system's cache is warm in every case; the order changes from round to round, the fastest round
counts). Second: open the data set again and give every row out in batches. Index: seconds, and peak memory above
that of an idle process, to list a .tar of so many members of 10 bytes, and to load that list from the cache. Far:
decode the same JPEGs behind a list over HTTP, from a server of this machine behind a line of so many Mbit/s and
milliseconds there and back (`link.py`), and what the line takes for the bytes alone.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import regraft as rg
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.files import archives
from regraft.data.files.archives import archive_at

ROUNDS, BATCH = 5, 32
SIDES = (375, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--milliseconds", type=float, default=50)
    parser.add_argument("--index-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index_only is not None:
        index(options.index_only)
        return
    with tempfile.TemporaryDirectory() as place:
        if options.images:
            epochs(Path(place), options.images)
            far(Path(place), options.mbit, options.milliseconds)
        if options.members:
            large(Path(place), options.members)


def epochs(place: Path, num: int) -> None:
    sources = packed(place / "photos", num)
    seconds: dict[str, dict[str, list[float]]] = {name: {"first": [], "second": []} for name in sources}
    for turn in range(ROUNDS):
        names = list(sources)
        for name in names[turn:] + names[:turn]:
            os.environ["REGRAFT_CACHE"] = str(place / f"cache-{turn}-{name}")
            archives._KNOWN.clear()
            for epoch in ("first", "second"):
                began = time.perf_counter()
                _, caches = decode_all(rg.open_data(sources[name]), PixelProgram((224, 224)), cache="disk")
                for cache in caches.values():
                    out = np.empty((BATCH, 224, 224, 3), dtype=np.uint8)
                    for start in range(0, len(cache), BATCH):
                        rows = np.arange(start, min(start + BATCH, len(cache)))
                        cache.fill(rows, out[: len(rows)])
                seconds[name][epoch].append(time.perf_counter() - began)
    print(f"{num} JPEGs of {SIDES[1]} x {SIDES[0]}, best of {ROUNDS} rounds, in seconds and as a share of the folder's")
    for name, found in seconds.items():
        shown = (f"{e} {min(found[e]):.2f} ({min(found[e]) / min(seconds['folder'][e]):.2f})" for e in found)
        print(f"{name:9}", "   ".join(shown))


def packed(folder: Path, num: int) -> dict[str, Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for number in range(num):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIDES[::-1])
        noise = rng.integers(-12, 13, (*SIDES, 3))
        buffer = io.BytesIO()
        pixels = np.clip(np.asarray(coarse).astype(np.int16) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files[f"{'ab'[number % 2]}/{number:06}.jpg"] = buffer.getvalue()
    sources = {
        "folder": folder,
        **{end: folder.with_name(f"photos.{end}") for end in ("zip", "tar", "tar.gz", "parquet")},
    }
    with (
        zipfile.ZipFile(sources["zip"], "w") as zipped,
        tarfile.open(sources["tar"], "w") as tar,
        tarfile.open(sources["tar.gz"], "w:gz") as gz,
    ):
        for name in sorted(files):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
            zipped.writestr(name, files[name])
            tar.add(path, name)
            gz.add(path, name)
    images = pa.array([{"bytes": files[name]} for name in sorted(files)])
    labels = pa.array([name[0] for name in sorted(files)])
    pq.write_table(pa.table({"image": images, "label": labels}), sources["parquet"], row_group_size=100)
    return sources


def far(place: Path, mbit: float, milliseconds: float) -> None:
    """Time the first epoch of what `packed` wrote, behind a line."""
    folder = place / "photos"
    files = sorted(folder.rglob("*.jpg"))
    (folder / "list.txt").write_text(
        "".join(f"{file.relative_to(folder).as_posix()} {file.parent.name}\n" for file in files)
    )
    floor = sum(file.stat().st_size for file in files) / (mbit * 1e6 / 8)
    command = [sys.executable, Path(__file__).with_name("link.py"), folder]
    options = [f"--mbit={mbit}", f"--milliseconds={milliseconds}"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        if server.stdout is None:
            raise RuntimeError("a pipe was asked for")
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/list.txt"
        found: dict[str, list[float]] = {"listed": [], "first": []}
        for turn in range(ROUNDS):
            os.environ["REGRAFT_CACHE"] = str(place / f"cache-far-{turn}")
            archives._KNOWN.clear()
            began = time.perf_counter()
            data = rg.open_data(url)
            found["listed"].append(time.perf_counter() - began)
            began = time.perf_counter()
            decode_all(data, PixelProgram((224, 224)), cache="disk")
            found["first"].append(time.perf_counter() - began)
        server.terminate()
    listed, first = (statistics.median(found[what]) for what in ("listed", "first"))
    print(
        f"{len(files)} JPEGs behind {mbit:g} Mbit/s and {milliseconds:g} ms: listed in {listed:.2f} s, first epoch in "
        f"{first:.2f} s, {floor / first:.0%} of what the line carries ({floor:.2f} s; medians of {ROUNDS})"
    )


def large(place: Path, num: int) -> None:
    path = place / "large.tar"
    with path.open("wb") as file:
        content = b"0123456789".ljust(512, b"\0")
        for number in range(num):
            info = tarfile.TarInfo(f"{number % 1000:03}/{number:07}.jpg")
            info.size = 10
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + content)
        file.write(bytes(1024))
    os.utime(path, (1_600_000_000,) * 2)
    os.environ["REGRAFT_CACHE"] = str(place / "cache-large")
    print(f"a .tar of {num:,} members, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
    for what in ("listed", "from the cache"):
        print(f"{what}: ", end="", flush=True)
        subprocess.run([sys.executable, __file__, "--index-only", path], check=True, env=os.environ)


def index(path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, worked = time.perf_counter(), time.process_time()
    archive = archive_at(str(path))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    num = 0 if archive is None else len(archive.index.table)
    spent = f"{seconds:.1f} s ({worked:.1f} s of the processor)"
    print(f"{num:,} members in {spent}, {peak - before:,.0f} MB above the {before:,.0f} MB of an idle process")


if __name__ == "__main__":
    main()
