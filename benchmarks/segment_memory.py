"""The largest memory of predicting one image of 4,000 × 3,000 pixels with a network for segmentation.

    uv run python benchmarks/segment_memory.py [--networks unet/vgg16 segnet/vgg16] [--threads 1]

For each network and each way of looking (at the size of the training; at the image's own pixels in tiles) a fresh
`regraft predict` process, with random weights: memory does not depend on their values. What counts is the largest
resident size of the process, Python and torch included, against the aim of 2 GiB. There is no peer: the figure is
absolute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from peers import machine

AIM = 2048  # MiB
SIZE = (3000, 4000)
TRAINED_AT = (352, 480)
WAYS = {"at the size of the training": (), "in tiles of 512 px": ("--tile", "512")}
# VmHWM is the process's own; ru_maxrss of a child begins at what the process had that started it.
PREDICT = """
import resource, sys
from pathlib import Path
from regraft.cli.main import run
sys.argv[0] = "regraft"
try:
    run()
except SystemExit as end:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    own = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("MiB", own[0] if own else largest / (2**20 if sys.platform == "darwin" else 2**10), file=sys.stderr)
    raise
"""


def make_model(place: Path, name: str, encoder: str) -> Path:
    """A model folder of 11 classes, as a run has it."""
    import torch

    import regraft as rg
    from regraft.models.store.folder import write_model

    model = rg.build_model(name, weights="none", encoder=encoder)
    model = rg.adapt(model, classes=[f"class {number}" for number in range(11)], image_size=TRAINED_AT)
    images = torch.zeros(1, 3, *TRAINED_AT)
    with torch.no_grad():
        write_model(place, model, probes={"images": images, "logits": model.eval()(images)})
    return place


def make_image(path: Path) -> Path:
    """A JPEG file of smooth colours, as large as a camera's."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def measured(model: Path, image: Path, out: Path, options: tuple[str, ...], threads: int | None) -> tuple[float, float]:
    """MiB and seconds of one prediction."""
    limit = [] if threads is None else ["--threads", str(threads)]
    command = [sys.executable, "-c", PREDICT, "predict", str(model), str(image), "--out", str(out), *options, *limit]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    with Image.open(out / f"{image.stem}.png") as mask:
        if mask.size != SIZE[::-1]:
            raise SystemExit(f"the mask has {mask.size} pixels")
    return float(done.stderr.rsplit("MiB", 1)[1]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["unet/tf_efficientnet_lite0", "unet/vgg16", "segnet/vgg16"])
    parser.add_argument("--threads", type=int, help="the processors that there are")
    arguments = parser.parse_args()
    print(machine())
    worst = 0.0
    with tempfile.TemporaryDirectory() as place:
        image = make_image(Path(place) / "image.jpg")
        for network in arguments.networks:
            name, _, encoder = network.partition("/")
            model = make_model(Path(place) / name / encoder, name, encoder)
            for way, options in WAYS.items():
                mib, seconds = measured(model, image, Path(place) / "masks", options, arguments.threads)
                worst = max(worst, mib)
                figures = f"{mib:,.0f} MiB, {seconds:.1f} s, {mib / AIM:.2f}x the aim"
                print(f"{name} on {encoder}, {way}: {figures}", flush=True)
    end = "met" if worst <= AIM else "MISSED"
    print(f"worst: {worst:,.0f} MiB, {worst / AIM:.2f}x the aim of {AIM:,} MiB ({end})")


if __name__ == "__main__":
    main()
