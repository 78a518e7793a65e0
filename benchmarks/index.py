"""A million files: seconds and memory of opening them, memory over an epoch, and how busy one keeps the processors.

    uv run python benchmarks/index.py [--files 1000000] [--classes 100] [--epoch-files 50000] [--train-files 0]
                                      [--folder FOLDER]

Aims: at most 60 s and at most 300 MB resident for the index of a million files; memory that stays flat over an epoch,
streamed and from the cache on the disk. `--train-files 200000` trains EfficientNet-lite0 (or `--model`) for an epoch on
images that are streamed from the disk, and prints how busy that keeps the processors (aim: at least 95 %): seconds of
the processors by seconds of the clock and the number of processors, from the first step to the last. The files of the
index are hard links to small JPEGs, 50,000 to each; those of the epochs all differ. Everything is made in a temporary
folder, and each figure is taken in a fresh process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import machine

LINKS = 50_000  # to one file; ext4 allows 65,000
BATCH = 64
_PLAIN: dict[int, bytes] = {}  # JPEGs by their side

INDEX = """
import json, resource, sys, time
import psutil
from regraft.data.open import open_data

process = psutil.Process()
before, began = process.memory_info().rss, time.perf_counter()
busy_before = sum(process.cpu_times()[:2])
data = open_data(sys.argv[1])
seconds, busy = time.perf_counter() - began, process.cpu_times()
print(json.dumps({
    "processor": busy.user + busy.system - busy_before,
    "files": sum(len(split) for split in data.splits.values()),
    "seconds": seconds,
    "before": before / 1e6,
    "resident": process.memory_info().rss / 1e6,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),
}))
"""

EPOCH = """
import json, sys, time
import psutil
from regraft.data.decode_all import decode_all
from regraft.data.decode.decode import PixelProgram
from regraft.data.cache.loader import batch_bounds, batches, num_batches
from regraft.data.open import open_data
from regraft.data.random import permutation

folder, cache, side, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
process, began = psutil.Process(), time.perf_counter()
data, pixels = decode_all(open_data(folder), PixelProgram((side, side)), cache=cache, budget_bytes=0)
decoded, rows, log = time.perf_counter() - began, len(pixels["train"]), []
steps = num_batches(rows, batch)
for epoch in range(2):
    order = permutation(1, epoch, rows)
    for step, _ in enumerate(batches(pixels["train"], data.train.labels, order, batch_bounds(rows, batch))):
        if step % max(1, steps // 10) == 0:
            log.append(process.memory_info().rss / 1e6)
print(json.dumps({
    "rows": rows, "decoded": decoded, "seconds": time.perf_counter() - began - decoded, "megabytes": log,
}))
"""

TRAIN = """
import json, os, sys, time
import psutil
import regraft as rg

folder, name, side, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
process, at = psutil.Process(), {}

def used():
    times = process.cpu_times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system

class Clock(rg.Callback):
    def on_step_end(self, stage, loss):
        at.setdefault("first", used())
        at["last"], at["steps"] = used(), stage.progress.step

recipe = {
    "model": {"name": name, "image_size": side, "weights": "none"}, "log": [], "seed": 1,
    "data": {"source": folder, "batch_size": batch, "cache": "off", "fractions": [0.99, 0.01, 0]},
    "stages": [{"name": "all", "train": "all", "optimizer": "sgd", "lr": 0.01, "epochs": 1}],
    "defaults": {"augment": {"flip": "horizontal"}},
}
rg.run_recipe(recipe, out=sys.argv[5], show=False, callbacks=[Clock()])
clock, processor = (last - first for first, last in zip(at["first"], at["last"]))
print(json.dumps({
    "images": at["steps"] * batch, "seconds": clock, "busy": processor / clock / len(os.sched_getaffinity(0)),
    "resident": process.memory_info().rss / 1e6,
}))
"""


def jpeg(side: int, number: int) -> bytes:
    """A small picture whose bytes no other number has: the number stands in a comment."""
    from PIL import Image

    if side not in _PLAIN:
        out = io.BytesIO()
        Image.radial_gradient("L").resize((side, side)).convert("RGB").save(out, "JPEG")
        _PLAIN[side] = out.getvalue()
    note = str(number).encode()
    return _PLAIN[side][:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + _PLAIN[side][2:]


def make(root: Path, files: int, classes: int, side: int, *, linked: bool) -> None:
    """`files` pictures in `classes` folders."""
    source = ""
    for number in range(files):
        folder = root / f"class_{number % classes:04d}"
        if number < classes:
            folder.mkdir(parents=True)
        path = f"{folder}/image_{number:08d}.jpg"
        if linked and number % LINKS:
            os.link(source, path)
        else:
            source = path
            with open(path, "wb") as file:
                file.write(jpeg(side, number))


def measured(script: str, *arguments: object, env: dict[str, str] | None = None) -> dict[str, object]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epoch-files", type=int, default=50_000)
    parser.add_argument("--train-files", type=int, default=0)
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="that is trained, with random weights")
    parser.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="of the index; the median counts")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="regraft-index-", dir=arguments.folder) as place:
        if arguments.files:
            began = time.perf_counter()
            make(Path(place) / "index", arguments.files, arguments.classes, arguments.side, linked=True)
            print(f"{arguments.files:,} links made in {time.perf_counter() - began:.0f} s", flush=True)
            runs = [measured(INDEX, f"{place}/index") for _ in range(arguments.rounds)]
            run = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
            print(
                f"index of {run['files']:,} files: {run['seconds']:.1f} s, {run['processor']:.1f} s of the processor "
                f"(aim: 60 s, up to ten million), {run['resident']:.0f} MB resident, {run['peak']:.0f} MB at most, "
                f"{run['before']:.0f} MB of them before (aim: 300 MB for a million, 800 MB for ten million)",
                flush=True,
            )
        if arguments.epoch_files:
            make(Path(place) / "epoch", arguments.epoch_files, arguments.classes, arguments.side, linked=False)
        for cache in ("off", "disk") if arguments.epoch_files else ():
            with tempfile.TemporaryDirectory(dir=place) as empty:
                env = {"REGRAFT_CACHE": empty}
                run = measured(EPOCH, f"{place}/epoch", cache, arguments.side, BATCH, env=env)
            log = run["megabytes"]
            shown = " ".join(f"{value:.0f}" for value in log)
            print(
                f"cache {cache}: {run['rows']:,} rows, decoded in {run['decoded']:.0f} s, two epochs in "
                f"{run['seconds']:.0f} s; MB resident by the step: {shown}; growth {log[-1] - log[1]:+.1f} MB",
                flush=True,
            )
        if arguments.train_files:
            make(Path(place) / "train", arguments.train_files, arguments.classes, arguments.side, linked=False)
            run = measured(TRAIN, f"{place}/train", arguments.model, arguments.side, BATCH, f"{place}/run")
            print(
                f"an epoch of {run['images']:,} streamed images, {arguments.model}: {run['seconds']:.0f} s, processors "
                f"{run['busy']:.1%} busy (aim: at least 95 %), {run['resident']:.0f} MB resident; {machine()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
