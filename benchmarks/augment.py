"""Augmentation per sample: regraft's fused pass against torchvision v2, alternating in the same run.

    uv run python benchmarks/augment.py [--size 224] [--images 32] [--rounds 9] [--threads 0] [--kornia]

Both sides start from the same uint8 images in memory and give each image its own random numbers. torchvision is run
the faster way it offers for that: one call per image on uint8 tensors, then the stack and the conversion to float32
that the model needs. `colours` adds brightness, contrast and saturation; `hue` adds torchvision's hue as well, which
works in HSV and is slow (regraft's is a linear map). With `--kornia`, kornia does the same work on the whole batch,
with random numbers for each image, in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.transforms import InterpolationMode, v2

from peers import environment, timed
from regraft.data.augment.augment import apply
from regraft.settings.augment import Augment

KORNIA = ["kornia==0.9.0", "torch==2.15.0", "numpy==2.4.6"]
GEOMETRY = {"rotation": 40.0, "shift": 0.2, "shear": 11.5, "zoom": 0.2, "flip": "horizontal"}
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}


def peers() -> dict[str, tuple[Augment, v2.Transform]]:
    """The same work on both sides, by name."""
    affine = v2.RandomAffine(40, (0.2, 0.2), (0.8, 1.2), 11.5, interpolation=InterpolationMode.BILINEAR)
    flip, erase = v2.RandomHorizontalFlip(), v2.RandomErasing(0.25)
    colour, hue = v2.ColorJitter(0.2, 0.2, 0.2), v2.ColorJitter(0.2, 0.2, 0.2, 0.05)
    return {
        "geometry": (Augment(**GEOMETRY, fill="constant"), v2.Compose([affine, flip])),
        "colours": (
            Augment(**GEOMETRY, **COLOURS, erase=0.25, fill="constant"),
            v2.Compose([affine, flip, colour, erase]),
        ),
        "hue": (
            Augment(**GEOMETRY, **COLOURS, hue=0.05, erase=0.25, fill="constant"),
            v2.Compose([affine, flip, hue, erase]),
        ),
    }


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(augment: Augment, transform: v2.Transform, images: torch.Tensor, rounds: int) -> tuple[float, float, float]:
    """Median milliseconds per image of both sides, and the median of the rounds' ratios."""

    def ours() -> torch.Tensor:
        return apply(images, augment, seed=0, epoch=0, sample_ids=range(len(images)))

    def theirs() -> torch.Tensor:
        return torch.stack([transform(image) for image in images]).float()

    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    scale = 1000 / len(images)
    ratio = statistics.median(theirs_s / ours_s for ours_s, theirs_s in pairs)
    return statistics.median(p[0] for p in pairs) * scale, statistics.median(p[1] for p in pairs) * scale, ratio


def with_kornia(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image of kornia, by the name of the work."""
    script, numbers = Path(__file__).with_name("kornia_peer.py"), (options.size, options.images, options.rounds)
    command = [environment("kornia", KORNIA), script, *numbers, torch.get_num_threads()]
    return json.loads(timed([str(part) for part in command])[1].splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kornia", action="store_true", help="compare with kornia as well")
    for name, default in (("size", 224), ("images", 32), ("rounds", 9), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    images = torch.randint(0, 256, (options.images, 3, options.size, options.size), dtype=torch.uint8)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {options.images} images of {options.size} px")
    other = with_kornia(options) if options.kornia else {}
    for name, (augment, transform) in peers().items():
        ours, theirs, ratio = compare(augment, transform, images, options.rounds)
        line = f"{name:9s} regraft {ours:6.3f} ms/image   torchvision v2 {theirs:6.3f} ms/image   ratio {ratio:.2f}x"
        if name in other:
            line += f"   kornia {other[name]:6.3f} ms/image   ratio {other[name] / ours:.2f}x"
        print(line)


if __name__ == "__main__":
    main()
