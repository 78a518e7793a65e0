"""Write the run folders that later versions have to read: `python tests/run/written/make_runs.py OUT`.

Run by the version whose folders are to be kept. Each is packed into OUT/NAME.tar.xz with what it predicts on images of
its test split; `stopped` once it was resumed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import regraft as rg

try:
    from regraft.compute.numerics import choose_numerics
except ImportError:  # where it was before that room was made
    from regraft.compute.numerics import choose_numerics

SIDE = 32
CLASSES = ("blue", "red")
NETWORK = {"name": "resnet18", "weights": "none", "image_size": SIDE, "args": {"channels": [4, 4, 4, 4]}}
COMMON = {
    "seed": 1,
    "log": [],
    "numerics": {"device": "cpu", "precision": "fp32", "channels_last": True, "threads": 1},
}
AUGMENT = {"rotation": 20, "flip": "horizontal"}
STAGES = [
    {"name": "head", "train": "head"},
    {"name": "all", "train": "all", "epochs": 3, "optimizer": "adamw", "lr": 0.001, "augment": AUGMENT},
]
UNET = {"encoder": "resnet18", "depth": 2, "filters": [4], "encoder_args": {"channels": [4, 4, 4, 4]}}


def write_photos(folder: Path) -> None:
    """Noise with a cast of blue or red: the same bytes everywhere."""
    random = np.random.Generator(np.random.Philox(5))
    for split, num in (("train", 6), ("validation", 4), ("test", 3)):
        for channel, name in ((2, "blue"), (0, "red")):
            for number in range(num):
                pixels = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., channel] += np.uint8(30)
                save(pixels, folder / split / name / f"{number}.bmp")


def write_scenes(folder: Path) -> None:
    """A bright box in noise, and its mask."""
    random = np.random.Generator(np.random.Philox(6))
    for split, num in (("train", 6), ("val", 3), ("test", 2)):
        for number in range(num):
            pixels = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            top, left = random.integers(2, SIDE // 2, 2)
            pixels[top : top + 12, left : left + 12] += np.uint8(120)
            mask[top : top + 12, left : left + 12] = 1
            save(pixels, folder / split / "images" / f"{number}.bmp")
            save(mask, folder / split / "masks" / f"{number}.png")


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def files_of(folder: str) -> list[str]:
    """The images of the test split, in order."""
    return sorted(path.as_posix() for path in Path(folder, "test").rglob("*.bmp"))


class Stop(rg.Callback):
    """Ends the run as Ctrl-C does, within the second stage."""

    def on_step_end(self, stage: object, loss: float) -> None:
        if stage.stage.name == "all" and stage.progress.epoch == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        write_photos(Path("photos"))
        write_scenes(Path("scenes"))
        recipe = {**COMMON, "model": NETWORK, "data": {"source": "photos", "batch_size": 4}, "stages": STAGES}
        rg.run_recipe(recipe, out="finished", show=False)
        try:
            rg.run_recipe(recipe, out="stopped", callbacks=[Stop()], show=False)
        except rg.RegraftError as error:
            print(error)
        masks = {"name": "all", "train": "all", "epochs": 2, "optimizer": "adamw", "lr": 0.001}
        network = {"name": "unet", "weights": "none", "image_size": SIDE, "args": UNET}
        recipe = {**COMMON, "model": network, "data": {"source": "scenes", "batch_size": 3}, "stages": [masks]}
        rg.run_recipe(recipe, out="segmentation", show=False)
        fp32 = choose_numerics("cpu", "fp32", 1)
        predicted = {row.path: row.probabilities for row in rg.predict("finished", files_of("photos"), numerics=fp32)}
        scenes = rg.predict_masks("segmentation", files_of("scenes"), numerics=fp32)
        shares = {row.path: row.shares for row in scenes}
        expected = {"finished": predicted, "stopped": predicted, "segmentation": shares}
        for name in ("finished", "stopped", "segmentation"):
            Path(f"{name}.json").write_text(json.dumps(expected[name]))
            with tarfile.open(out / f"{name}.tar.xz", "w:xz") as archive:
                archive.add(name)
                archive.add(f"{name}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
