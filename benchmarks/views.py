"""What it costs in accuracy to show K views of each augmented photo in turn, instead of a new one in each epoch.

    uv run python benchmarks/views.py PHOTOS [--views 1 2 5] [--epochs 10] [--seeds 3] [--images N] [--size 128]

A new head on the frozen EfficientNet-lite0, augmented as the default recipe's second stage is, each view computed once
(`feature_cache: {views: K}`), beside the same run without views; best validation accuracy and lowest validation loss of
each seed. K = epochs is the same to the last bit, and is checked to be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from against_keras import subset
from peers import Results, cold_cache, machine, timed

AUGMENT = {"flip": "horizontal", "rotation": 15, "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2}


def run(photos: Path, views: int | None, seed: int, *, epochs: int, size: int, threads: int | None) -> dict[str, Any]:
    """The best accuracy and loss of a run, its seconds, and the hash of its weights after the last epoch."""
    stage = {"name": "head", "train": "head", "epochs": epochs, "optimizer": "adamw", "lr": 1e-3, "augment": AUGMENT}
    recipe = {"model": {"image_size": size}, "seed": seed, "data": {"batch_size": 32}, "stages": [stage]}
    with cold_cache() as cache, tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "recipe.yaml", Path(place) / "run"
        file.write_text(json.dumps(recipe))  # JSON is YAML
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", photos, "--recipe", file, "--out", out]
        command += ["--feature-cache", "auto" if views is None else views]
        command += [] if threads is None else ["--threads", threads]
        seconds, _ = timed([str(part) for part in command], env=cache)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        last = max(out.glob("checkpoints/step-*/model.safetensors"))
        weights = hashlib.sha256(last.read_bytes()).hexdigest()[:16]
    epochs_of = [line for line in lines if "val_loss" in line]
    return {
        "accuracy": 100 * max(line["val_top1"] for line in epochs_of),
        "loss": min(line["val_loss"] for line in epochs_of),
        "seconds": seconds,
        "weights": weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, help="of each class and split; all of them")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of each run; the processors that there are")
    parser.add_argument("--again", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    photos = arguments.photos.absolute()
    used = subset(photos, arguments.images)
    settings = {name: getattr(arguments, name) for name in ("epochs", "size", "threads")}
    results = Results("views", {**settings, "photos": photos, "images": arguments.images}, again=arguments.again)
    print(machine())
    exact: list[dict[str, Any]] = []
    for views in (None, arguments.epochs, *arguments.views):
        seeds = range(1, 2 if views == arguments.epochs else arguments.seeds + 1)
        runs = [
            results.once(
                f"views {views} seed {seed}",
                lambda views=views, seed=seed: run(used, views, seed, **settings),
            )
            for seed in seeds
        ]
        exact = exact or runs
        if views == arguments.epochs:
            same = runs[0]["weights"] == exact[0]["weights"]
            print(f"{views} views of {arguments.epochs} epochs: {'the same weights' if same else 'OTHER WEIGHTS'}")
            continue
        values = [one["accuracy"] for one in runs]
        loss, base = statistics.mean(one["loss"] for one in runs), statistics.mean(one["accuracy"] for one in exact)
        name = "a new view in each epoch" if views is None else f"{views} views"
        print(
            f"{name}: accuracy {statistics.mean(values):.2f} % ({', '.join(f'{value:.2f}' for value in values)}), "
            f"{statistics.mean(values) - base:+.2f} points; loss {loss:.4f}; "
            f"{statistics.median(one['seconds'] for one in runs):.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
