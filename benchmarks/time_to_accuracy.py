"""Time from process start to a saved model, against the floor: import, decode once, one bf16 forward of each image.

    uv run python benchmarks/time_to_accuracy.py PHOTOS [--rounds 3] [--recipe-rounds 1]

The floor and regraft run alternately, each in a fresh process, medians are compared; the validation accuracy of the
trained model stands beside its time. Each run starts without the pixels that an earlier one decoded. The floor's
forward is the plain network in bf16 and channels-last at the batch size that is fastest here of those tried (8, 16,
32), so that it is a fair floor.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from peers import cold_cache, median, timed

FLOOR = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, timm, torch
from PIL import Image

size, batch = 224, int(sys.argv[2])
paths = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))

def decode(path):
    image = Image.open(path)
    image.draft("RGB", (size, size))
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))

with ThreadPoolExecutor(torch.get_num_threads()) as pool:
    pixels = np.stack(list(pool.map(decode, paths)))
model = timm.create_model("tf_efficientnet_lite0", num_classes=2).eval()
model = model.to(memory_format=torch.channels_last).bfloat16()
with torch.inference_mode():
    for start in range(0, len(pixels), batch):
        images = torch.from_numpy(pixels[start : start + batch]).permute(0, 3, 1, 2).to(torch.bfloat16)
        model(images.sub(127.5).div(127.5))
print(len(pixels))
"""


def floor(photos: Path, batch: int) -> float:
    return timed([sys.executable, "-c", FLOOR, str(photos), str(batch)])[0]


def fastest_batch(photos: Path) -> int:
    """The batch size that makes the floor's forward fastest here, of those tried."""
    return min((8, 16, 32), key=lambda size: floor(photos, size))


def regraft(photos: Path, *options: str, warm: bool = False) -> dict[str, float]:
    """Seconds from process start to the saved model, and its validation accuracy as `regraft evaluate` measures it.

    Each run decodes the photos; with `warm`, it finds those of a run before it.
    """
    with cold_cache() as cache:
        if warm:
            _one_run(photos, options, cache)
        return _one_run(photos, options, cache)


def _one_run(photos: Path, options: Sequence[str], cache: dict[str, str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", str(photos), "--out", str(run), *options]
        took, _ = timed(command, until=run / "model" / "manifest.json", env=cache)
        measures = json.loads(next((run / "predictions").glob("*.json")).read_text())
        return {"seconds": took, "accuracy": measures["top1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe-rounds", type=int, default=1, help="runs of the whole default recipe")
    arguments = parser.parse_args()
    batch = fastest_batch(arguments.photos)
    floors, heads = [], []
    for _ in range(arguments.rounds):
        floors.append(floor(arguments.photos, batch))
        heads.append(regraft(arguments.photos, "--stages", "head"))
    base, head = median(floors), median([run["seconds"] for run in heads])
    print(f"floor (import + decode + one bf16 forward each, batch {batch}): {base:.1f} s")
    print(f"--stages head: {head:.1f} s, accuracy {heads[0]['accuracy']:.2%}, ratio to the floor {head / base:.2f}")
    for _ in range(arguments.recipe_rounds):
        run = regraft(arguments.photos)
        took = run["seconds"]
        print(f"default recipe: {took:.1f} s, accuracy {run['accuracy']:.2%}, ratio to the floor {took / base:.2f}")


if __name__ == "__main__":
    main()
