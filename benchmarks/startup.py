"""How long commands take before they do anything, as multiples of `python -c "import torch"` in the same run.

    uv run python benchmarks/startup.py [--rounds 5] [--clock wall] [--profile NAME]

- *predict*: `regraft predict RUN ONE.jpg` by torch, process included; RUN is a stored EfficientNet-lite0, untrained, as
  time does not depend on its numbers (aim: at most 1.6);
- *train*: `regraft train PHOTOS` until its first photo is decoded (aim: at most 2.0);
- *--help*, and *inspect* of its weights file, which need no torch.

All sides alternate, each in a process of its own; medians are compared. `--clock cpu` takes seconds of the processor
instead of the clock's, for machines where other work runs. `--profile predict` (train, evaluate, ...) prints what that
command imports instead: seconds by package, from `python -X importtime`, each module counted for itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MODEL = """
import sys, torch, regraft as rg
from pathlib import Path
from regraft.models.store.folder import write_model
model = rg.adapt(rg.build_model(sys.argv[2], seed=0), classes=["cat", "dog"]).eval()
images = torch.zeros(1, 3, 224, 224)
with torch.no_grad():
    write_model(Path(sys.argv[1]) / "model", model, probes={"images": images, "logits": model(images)})
"""
# Ends the process at the moment when the first image of a run is decoded.
FIRST_PHOTO = """
import os, sys
from regraft.cli.main import run
from regraft.data.decode.decode import PixelProgram

def read(program, data, own=PixelProgram.read):
    own(program, data)
    os._exit(0)

PixelProgram.read = read
run()
"""
COMMAND = "from regraft.cli.main import run; run()"
AIMS = {"predict": 1.6, "train": 2.0}


def seconds(command: Sequence[str], clock: str) -> float:
    """Seconds of a process, by the clock or of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used if clock == "cpu" else took


def photos(folder: Path) -> Path:
    """Return 24 photos of noise in two classes."""
    noise = np.random.default_rng(0)
    for number in range(24):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    return folder


def sides(folder: Path, name: str) -> dict[str, list[str]]:
    """Return the arguments of Python for each side."""
    images = photos(folder / "photos")
    subprocess.run([sys.executable, "-c", MODEL, str(folder), name], check=True)
    one = str(images / "a" / "0.jpg")
    train = ["train", str(images), "--model", name, "--out", str(folder / "run")]
    return {
        "import torch": ["-c", "import torch"],
        "predict": ["-c", COMMAND, "predict", str(folder / "model"), one, "--engine", "torch"],
        "train": ["-c", FIRST_PHOTO, *train],
        "--help": ["-c", COMMAND, "--help"],
        "inspect": ["-c", COMMAND, "inspect", str(folder / "model" / "model.safetensors")],
    }


def profile(command: Sequence[str], least: float = 0.01) -> str:
    """Return the seconds that each package's modules take to be imported, the largest first."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True)
    packages: dict[str, float] = {}
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            parts = name.partition("|")[2].strip().split(".")
            package = ".".join(parts[:2]) if parts[0] in ("torch", "timm", "torchvision", "regraft") else parts[0]
            packages[package] = packages.get(package, 0.0) + int(own) / 1e6
    rows = sorted(packages.items(), key=lambda item: -item[1])
    total = f"{sum(packages.values()):6.2f} s in all"
    return "\n".join([total, *(f"{took:6.2f} s {name}" for name, took in rows if took >= least)])


def load() -> str:
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--profile", metavar="SIDE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = sides(Path(folder), arguments.model)
        if arguments.profile is not None:
            print(profile(commands[arguments.profile]))
            return
        print(f"load before: {load()}", flush=True)
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                took[name].append(seconds(command, arguments.clock))
                if name == "train":
                    shutil.rmtree(Path(folder) / "run", ignore_errors=True)
        print(f"load after: {load()}; medians of {arguments.rounds}, {arguments.clock} seconds")
        base = statistics.median(took["import torch"])
        for name, values in took.items():
            middle = statistics.median(values)
            aim = f" (aim: at most {AIMS[name]})" if name in AIMS else ""
            print(f"{name}: {middle:.2f} s, {middle / base:.2f}x{aim}; all: {', '.join(f'{v:.2f}' for v in values)}")


if __name__ == "__main__":
    main()
