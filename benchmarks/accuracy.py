"""How good the network is that a time buys: head alone, the default, and budgets, on data sets of one's own.

    uv run python benchmarks/accuracy.py DATA... [--budgets 1m 10m] [--split val|test] [--images N] [--again]

Every run starts from the same backbone weights, in a process of its own without decoded pixels of an earlier one. For
each it prints accuracy with its 95 % interval (Wilson), seconds from the start of the process to the report, and by how
much it is ahead of the head alone: paired over the images, with a 95 % interval from 10,000 resamples. Choices are made
on `val`, which is what it prints unless `--split test` says otherwise. `--images N` trains on N images of each class.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from peers import Results, cold_cache, folder, machine, timed
from regraft.wording import wilson_interval

SUFFIXES = {".jpg", ".jpeg", ".png"}
RESAMPLES = 10_000


def subset(data: Path, num_images: int) -> Path:
    """Links to the first so many training images of each class, and to all that the others are."""
    place = folder() / f"{data.name}-{num_images}-a-class"
    if place.exists():
        return place
    for source in sorted(path for path in data.glob("*/*/*") if path.suffix.lower() in SUFFIXES):
        target = place / source.relative_to(data)
        if target.parts[-3] == "train" and target.parent.exists() and len(os.listdir(target.parent)) >= num_images:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    return place


def trained(data: Path, options: list[str], split: str) -> dict[str, Any]:
    """Train and evaluate in a new process; its seconds, and for each image of a split, by path, 1 where it is right."""
    with tempfile.TemporaryDirectory() as made, cold_cache() as cold:
        run = Path(made) / "run"
        command = [sys.executable, "-m", "regraft", "-q", "train", str(data), *options, "--out", str(run)]
        took, _ = timed(command, env=cold)
        rows = run / "predictions" / f"{split}.jsonl"
        if not rows.exists():
            timed([sys.executable, "-m", "regraft", "-q", "evaluate", str(run), "--split", split], env=cold)
        lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        right = {line["path"]: line["prediction"] == line["label"] for line in lines if line.get("label") is not None}
        return {"seconds": took, "right": "".join("01"[right[path]] for path in sorted(right))}


def lead(run: dict[str, Any], other: dict[str, Any]) -> tuple[float, float, float]:
    """By how many points a run is ahead of another on the same images, and the 95 % interval."""
    gains = np.array([int(one) - int(two) for one, two in zip(run["right"], other["right"], strict=True)])
    draws = np.random.default_rng(0).choice(gains, (RESAMPLES, len(gains))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return 100 * float(gains.mean()), 100 * float(low), 100 * float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--budgets", nargs="*", default=["1m", "10m"])
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--images", type=int, help="of each class to train on; all")
    parser.add_argument("--again", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    kinds = {"head": ["--stages", "head"], "default": []}
    kinds |= {f"--budget {budget}": ["--budget", budget] for budget in arguments.budgets}
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    for given in arguments.data:
        data = given.absolute() if arguments.images is None else subset(given.absolute(), arguments.images)
        results = Results("accuracy", {"data": data, "split": arguments.split}, again=arguments.again)
        print(f"{data.name}, {arguments.split}")
        head = None
        for kind, options in kinds.items():
            run = results.once(kind, lambda data=data, options=options: trained(data, options, arguments.split))
            head = head or run
            num = len(run["right"])
            share = run["right"].count("1") / num
            low, high = wilson_interval(share, num)
            gain = "" if run is head else "  {:+.1f} ({:+.1f} to {:+.1f}) points".format(*lead(run, head))
            accuracy = f"{share:.1%} ({low:.1%} to {high:.1%}) of {num}"
            print(f"  {kind:<14} {run['seconds']:6.0f} s  {accuracy}{gain}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
