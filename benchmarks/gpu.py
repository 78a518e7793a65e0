"""Full fine-tuning of ResNet50, 224 px, bf16, on a GPU: images/s against timm's loop and fastai's, and how busy it is.

    uv run python benchmarks/gpu.py PHOTOS [--batch 128] [--epochs 6] [--rounds 3] [--workers 12] [--fastai PYTHON]

Aims: the GPU is busy at least 90 % of the time; faster than both. The first epoch of each side is left out. regraft
runs with its pixels decoded once in memory, and again with `--cache off`, which says what decoding once brings.
`--fastai` names a Python that has fastai, where the machine cannot reach a registry; `--fastai none` leaves it out.
Without a CUDA device it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from against_fastai import PEER
from peers import cold_cache, environment, median, timed

AUGMENT = {"flip": "horizontal", "rotation": 10, "zoom": 0.1}
AIM = 90.0
_BUSY = 20.0  # percent; below, a sample before the first or behind the last such one is start-up or the end


class Busy:
    """The utilisation of the GPU in percent, sampled by nvidia-smi while something runs."""

    def __init__(self) -> None:
        command = "nvidia-smi -i 0 --query-gpu=utilization.gpu --format=csv,noheader,nounits -lms 200"
        self._process = subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True)
        self._values: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.strip().isdigit():
                self._values.append(float(line))

    def end(self) -> float:
        """The mean from the first to the last sample at which it was busy at all: start-up is not what is meant."""
        self._process.terminate()
        self._reader.join()
        busy = [place for place, value in enumerate(self._values) if value >= _BUSY]
        return statistics.mean(self._values[busy[0] : busy[-1] + 1]) if busy else 0.0


def regraft(photos: Path, cache: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Images/s behind the first epoch, and the share of time that waited for images, in percent."""
    stage = {"name": "all", "train": "all", "epochs": arguments.epochs, "optimizer": "adamw", "lr": 1e-4}
    recipe = {
        "model": {"name": "resnet50", "weights": "none", "image_size": 224},
        "data": {"batch_size": arguments.batch, "cache": cache},
        "numerics": {"precision": "bf16"},
        "stages": [{**stage, "augment": AUGMENT}],
    }
    with cold_cache() as env, tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "recipe.yaml", Path(place) / "run"
        file.write_text(json.dumps(recipe))  # JSON is YAML
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", photos, "--recipe", file, "--out", out]
        timed([str(part) for part in command], env=env)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    later: list[dict[str, Any]] = [line for line in lines if line.get("images_per_second")][1:]
    waited = 100 * median([line.get("data_wait") or 0.0 for line in later])
    return median([line["images_per_second"] for line in later]), waited


def peer(python: Path | str, name: str, photos: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    script = Path(__file__).with_name("gpu_peers.py")
    command = [python, script, name, photos, arguments.epochs, arguments.batch, arguments.workers]
    _, text = timed([str(part) for part in command])
    run = json.loads(text.splitlines()[-1])
    return run["images"] / median(run["seconds"][1:]), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=12, help="of the peers' loaders")
    parser.add_argument("--fastai", help="a Python that has fastai; none leaves it out; made with uv where not given")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was measured. Run this script on a machine with a GPU.")
        return
    photos = arguments.photos.absolute()
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "regraft": lambda: regraft(photos, "ram", arguments),
        "regraft --cache off": lambda: regraft(photos, "off", arguments),
        "timm": lambda: peer(sys.executable, "timm", photos, arguments),
    }
    if arguments.fastai != "none":
        python = arguments.fastai or environment("fastai", PEER)
        sides["fastai"] = lambda: peer(python, "fastai", photos, arguments)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    busy: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            watch = Busy()
            try:
                rate, waited = side()
            finally:
                share = watch.end()
            rates[name].append(rate)
            busy[name].append(share)
            print(
                f"  {name}: {rate:,.0f} images/s, GPU busy {share:.0f} %, waited for images {waited:.0f} %", flush=True
            )
    print(
        f"{torch.cuda.get_device_name()}, ResNet50, 224 px, bf16, batch {arguments.batch}, median of {arguments.rounds}"
    )
    ours = median(rates["regraft"])
    for name in sides:
        ratio = (
            f", regraft {ours / median(rates[name]):.2f}x as fast" if name != "regraft" else f" (aim: {AIM:.0f} % busy)"
        )
        print(f"{name}: {median(rates[name]):,.0f} images/s, GPU busy {median(busy[name]):.0f} %{ratio}")


if __name__ == "__main__":
    main()
