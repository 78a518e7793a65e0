"""Read, match and convert VGG16 with its top from a Keras .h5 (553 MB): against reading and copying its bytes once.

uv run python benchmarks/weights_io.py [--rounds 5] [--threads 2] [--folder DIR]

The file is written first (random values), so it lies in the page cache. In one process after all imports, in turn:
(a) the floor: read the bytes of the file and copy them once; (b) read_weights, match_weights and graft into a model
that was built before. Medians and the median of the rounds' ratios are printed, and by how much the process's peak
memory in (b) rose above what it held before, measured in a process of its own; the aim is file + 2 x largest tensor.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

MB = 1e6


def write_file(path: Path) -> None:
    """VGG16 with its top under Keras's names, random values."""
    from regraft.weights.writers import keras_h5
    from regraft.weights.writers.keras_tensor import KerasTensor

    random = np.random.default_rng(0)
    shapes: list[tuple[str, tuple[int, ...]]] = []
    channels = 3
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for conv in range(1, count + 1):
            shapes.append((f"block{block}_conv{conv}", (3, 3, channels, width)))
            channels = width
    shapes += [("fc1", (25088, 4096)), ("fc2", (4096, 4096)), ("predictions", (4096, 1000))]
    tensors = []
    for layer, shape in shapes:
        tensors.append(KerasTensor(layer, "kernel", random.standard_normal(shape, np.float32)))
        tensors.append(KerasTensor(layer, "bias", random.standard_normal(shape[-1:], np.float32)))
    keras_h5.write(path, tensors)


def floor(path: Path) -> None:
    """Read the bytes of the file and copy them once."""
    held = np.fromfile(path, np.uint8)
    held.copy()


def load(path: Path, model: object) -> None:
    """What regraft does."""
    import regraft as rg

    report = rg.match_weights(rg.read_weights(path), model)
    rg.graft(model, report.require("all"))


def seconds(work: object, *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


class Peak:
    """The process's largest resident memory while it is open, above what it held before, in bytes."""

    def __enter__(self) -> Peak:
        import psutil

        self._process = psutil.Process()
        self.baseline = self.highest = self._process.memory_info().rss
        self._open = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._open:
            self.highest = max(self.highest, self._process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    @property
    def rise(self) -> int:
        return self.highest - self.baseline


def measure_memory(path: Path) -> None:
    """In a process of its own: the model is built, then (b) once."""
    import regraft as rg

    model = rg.build_model("vgg16")
    with Peak() as peak:
        load(path, model)
    print(peak.rise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--memory", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.memory is not None:
        measure_memory(options.memory)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "vgg16.h5"
        write_file(path)
        compare(path, options.rounds, options.threads)


def compare(path: Path, rounds: int, threads: int) -> None:
    import torch

    import regraft as rg

    torch.set_num_threads(threads)
    model = rg.build_model("vgg16")
    load(path, model), floor(path)
    pairs = [(seconds(floor, path), seconds(load, path, model)) for _ in range(rounds)]
    ratio = statistics.median(ours / least for least, ours in pairs)
    rise = int(subprocess.check_output([sys.executable, __file__, "--threads", str(threads), "--memory", str(path)]))
    size, largest = path.stat().st_size, 25088 * 4096 * 4
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, {threads} threads, {date.today()}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"file {size / MB:.0f} MB; {rounds} rounds in turn")
    print(f"floor   {statistics.median(p[0] for p in pairs):.3f} s   read the bytes and copy them once")
    print(f"regraft {statistics.median(p[1] for p in pairs):.3f} s   read, match, convert, graft")
    print(f"ratio   {ratio:.2f}x (aim: at most 1.50x)")
    print(f"memory  {rise / MB:.0f} MB above baseline (aim: at most {(size + 2 * largest) / MB:.0f} MB)")


if __name__ == "__main__":
    main()
