"""Time from process start to a saved model, against the floor: import, decode once, one bf16 forward of each image.

    uv run python benchmarks/time_to_accuracy.py PHOTOS [--rounds 3] [--recipe-rounds 1]

The floor and regraft run alternately, each in a fresh process, medians are compared; the validation accuracy of the
trained model stands beside its time. The floor's forward is the plain network in bf16 and channels-last at the batch
size that is fastest here of those tried (8, 16, 32), so that it is a fair floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def seconds_of(command: list[str], until: Path | None = None) -> float:
    """Wall-clock seconds of a process, or until it has written `until`."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took = None
    while process.poll() is None:
        if until is not None and took is None and until.exists():
            took = time.perf_counter() - began
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{process.stderr.read() if process.stderr else ''}")
    return took if took is not None else time.perf_counter() - began


def floor(photos: Path, batch: int) -> float:
    return seconds_of([sys.executable, "-c", FLOOR, str(photos), str(batch)])


def regraft(photos: Path, *options: str) -> tuple[float, float]:
    """Seconds from process start to the saved model, and its validation accuracy as `regraft evaluate` measures it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", str(photos), "--out", str(run), *options]
        took = seconds_of(command, until=run / "model" / "manifest.json")
        measures = json.loads(next((run / "predictions").glob("*.json")).read_text())
        return took, measures["top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe-rounds", type=int, default=1, help="runs of the whole default recipe")
    arguments = parser.parse_args()
    batch = min((8, 16, 32), key=lambda size: floor(arguments.photos, size))
    floors, heads = [], []
    for _ in range(arguments.rounds):
        floors.append(floor(arguments.photos, batch))
        heads.append(regraft(arguments.photos, "--stages", "head"))
    base, head = statistics.median(floors), statistics.median(took for took, _ in heads)
    print(f"floor (import + decode + one bf16 forward each, batch {batch}): {base:.1f} s")
    print(f"--stages head: {head:.1f} s, accuracy {heads[0][1]:.2%}, ratio to the floor {head / base:.2f}")
    for _ in range(arguments.recipe_rounds):
        took, accuracy = regraft(arguments.photos)
        print(f"default recipe: {took:.1f} s, accuracy {accuracy:.2%}, ratio to the floor {took / base:.2f}")


if __name__ == "__main__":
    main()
