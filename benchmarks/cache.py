"""What the caches save: the same stage with and without, and whether it ends in the same bits.

    uv run python benchmarks/cache.py PHOTOS [--rounds 3]

Each round trains the head stage of the default recipe in a fresh process for each `--cache`: off, ram, disk with an
empty folder, and disk with the folder of the run before. A second table trains a head by gradient descent for some
epochs on photos that do not vary, with `--feature-cache off` and `auto`. Seconds are from process start to the saved
model, medians of the rounds, which go through the modes in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD = ("--stages", "head")
DESCENT = ("--stages", "head", "--set", "stages.head.optimizer=adamw", "--set", "stages.head.epochs=5")
MODES = {
    "off": (*HEAD, "--cache", "off"),
    "ram": (*HEAD, "--cache", "ram"),
    "disk, cold": (*HEAD, "--cache", "disk"),
    "disk, warm": (*HEAD, "--cache", "disk"),
    "5 epochs, features off": (*DESCENT, "--cache", "ram", "--feature-cache", "off"),
    "5 epochs, features auto": (*DESCENT, "--cache", "ram", "--feature-cache", "auto"),
}


def trained(photos: Path, cache: Path, options: tuple[str, ...]) -> tuple[float, str]:
    """Seconds from process start to the saved model, and the hash of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", str(photos), "--out", str(run), *options]
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "REGRAFT_CACHE": str(cache)},
        )
        took = None
        while process.poll() is None:
            if took is None and (run / "model" / "manifest.json").exists():
                took = time.perf_counter() - began
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"{command} failed:\n{process.stderr.read() if process.stderr else ''}")
        weights = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
        return took if took is not None else time.perf_counter() - began, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    hashes: dict[str, set[str]] = {mode: set() for mode in MODES}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for mode, options in MODES.items():
                cache = Path(folder) / "cache"
                if mode == "disk, cold":
                    shutil.rmtree(cache, ignore_errors=True)
                took, weights = trained(arguments.photos, cache, options)
                seconds[mode].append(took)
                hashes[mode].add(weights)
    medians = {mode: statistics.median(values) for mode, values in seconds.items()}
    for mode, median in medians.items():
        print(f"{mode:24} {median:7.1f} s  weights {', '.join(sorted(value[:12] for value in hashes[mode]))}")
    pixels = {value for mode in list(MODES)[:4] for value in hashes[mode]}
    features = {value for mode in list(MODES)[4:] for value in hashes[mode]}
    print(f"same bits: pixels {len(pixels) == 1}, features {len(features) == 1}")
    print(f"warm disk against ram: {medians['disk, warm'] / medians['ram']:.2f}x")
    print(f"cold disk against ram: {medians['disk, cold'] / medians['ram']:.2f}x")
    off, auto = medians["5 epochs, features off"], medians["5 epochs, features auto"]
    print(f"features kept against computed again: {auto / off:.2f}x")


if __name__ == "__main__":
    main()
