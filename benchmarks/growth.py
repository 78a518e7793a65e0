"""Time and memory of a run against the number of photos, of classes, and the image size: nothing worse than linear.

    uv run python benchmarks/growth.py PHOTOS [--images 250 2000 16000] [--classes 2 40 1000] [--sizes 96 160 224 320]

Each row is a fresh `regraft train PHOTOS --stages head`, whole process, and the most memory that it ever took. Photos
beyond those that there are come again with another comment in their JPEG header, so that each file has bytes of its own
and is decoded. The last columns compare with the row before: the growth of the processors' seconds / of the
memory, divided by the growth of the number (1 is in proportion, more than 1 is worse than linear), and the processors'
milliseconds for one more. For image sizes the number is that of the pixels. Processors' seconds, because they hold on a
machine that does other work as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from peers import Results, cold_cache, machine

LINEAR = 1.1


def photos_of(source: Path) -> list[Path]:
    """One photo of each class after the other, so that every second file is of the same class where there are two."""
    by_class: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            by_class.setdefault(path.parent.name, []).append(path)
    return [path for paths in zip(*by_class.values(), strict=False) for path in paths]


def make(place: Path, source: Path, images: int, classes: int) -> None:
    """So many photos in so many class folders, every file with bytes of its own."""
    files = photos_of(source)
    for number in range(images):
        folder = place / f"class_{number % classes:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        data, note = files[number % len(files)].read_bytes(), str(number).encode()
        note = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note
        (folder / f"{number:06d}.jpg").write_bytes(data[:2] + note + data[2:])


def measured(source: Path, images: int, classes: int, size: int, threads: int | None) -> dict[str, float]:
    """Seconds of the process, those of processors that it used, and its most memory in MB."""
    with cold_cache() as cache, tempfile.TemporaryDirectory() as place:
        make(Path(place) / "photos", source, images, classes)
        out = Path(place) / "run"
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", f"{place}/photos", "--out", str(out)]
        command += ["--stages", "head", "--image-size", str(size)]
        command += [] if threads is None else ["--threads", str(threads)]
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | cache
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu": cpu, "megabytes": usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)}


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, Sequence[tuple[int, int, int, float]]]]:
    """What grows, and for each row images, classes, size, and the number that grows."""
    images, size = arguments.base_images, arguments.size
    yield "photos", [(number, 2, size, float(number)) for number in arguments.images]
    yield "classes", [(4 * max(arguments.classes), number, size, float(number)) for number in arguments.classes]
    yield "size", [(images, 2, number, float(number) ** 2) for number in arguments.sizes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, nargs="*", default=[250, 2000, 16000])
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 40, 1000])
    parser.add_argument("--sizes", type=int, nargs="*", default=[96, 160, 224, 320])
    parser.add_argument("--base-images", type=int, default=1000, help="photos where the image size grows")
    parser.add_argument("--size", type=int, default=128, help="image size where photos or classes grow")
    parser.add_argument("--threads", type=int, help="of each run; the processors that there are")
    parser.add_argument("--again", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    source = arguments.photos.absolute()
    results = Results("growth", {"photos": source, "threads": arguments.threads}, again=arguments.again)
    print(machine())
    titles = ("grows", "photos", "classes", "size", "seconds", "of CPUs", "MB at most", "growth / of number", "ms each")
    print(f"| {' | '.join(titles)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for what, table in rows(arguments):
        before: tuple[float, float, float] | None = None
        for images, classes, size, number in table:
            run = results.once(
                f"{images} photos {classes} classes {size} px",
                lambda images=images, classes=classes, size=size: measured(
                    source, images, classes, size, arguments.threads
                ),
            )
            now = (number, run["cpu"], run["megabytes"])
            share = [(now[place] / before[place]) / (number / before[0]) for place in (1, 2)] if before else []
            shown = " / ".join(f"{value:.2f}" for value in share)
            if before:
                shown += f" | {1000 * (run['cpu'] - before[1]) / (number - before[0]):.4g}"
            worst, before = max([worst, *share]), now
            numbers = f"{run['seconds']:.1f} | {now[1]:.1f} | {now[2]:,.0f} | {shown}"
            print(f"| {what} | {images:,} | {classes:,} | {size} | {numbers} |", flush=True)
    print(f"worst: {worst:.2f} ({'at most linear' if worst <= LINEAR else 'WORSE than linear'})")


if __name__ == "__main__":
    main()
