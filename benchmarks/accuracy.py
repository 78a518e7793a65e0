"""How good the network is that a time buys: regraft's head alone, its default, budgets, and its peers in the same time.

    uv run python benchmarks/accuracy.py DATA... [--budgets 2m 10m] [--peers fastai timm keras] [--split val|test]
                                         [--images N] [--plots FOLDER] [--again]

Every run starts from the same backbone weights, in a process of its own without decoded pixels of an earlier one. Each
peer has the seconds of regraft's default and of each budget, and fastai also twice that: its best of `fine_tune(N)`,
N = 1, 3, 5, of those that ended in time; timm's parts and Keras's two stages as many epochs as fit (`--peers` alone:
none).
Prints accuracy with its 95 % interval (Wilson), seconds from the start of the process until it was known, and by how
much regraft is ahead: of its head alone, and of a peer that had the same time or twice that; paired over the images,
with a 95 % interval from 10,000 resamples. Then the same as a table, and a plot beside the results (or in `--plots`).
Choices are made on `val`, which is what it prints unless `--split test` says otherwise; fastai's best of three is taken
on the images that are printed, in its favour. `--images N` trains on N images of each class.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_plot import Point, plot
from against_fastai import PEER as FASTAI
from against_fastai import backbone
from peer_photos import folder_of
from peers import Results, cold_cache, environment, folder, machine, timed
from regraft.wording import wilson_interval

SUFFIXES = {".jpg", ".jpeg", ".png"}
RESAMPLES = 10_000
KERAS = ["keras==3.15.1", *(package for package in FASTAI if not package.startswith("fastai"))]
# timm's RandAugment posterizes to 0 bits at times, which Pillow 13 refuses.
TIMM = ["pillow==12.*", *(package for package in KERAS[1:] if not package.startswith("pillow"))]
EPOCHS = (1, 3, 5)  # of fastai's fine_tune

# "right": for each image of the split in the order of their paths 1, 0, or - where there is no answer; None: too slow.
Run = dict[str, Any]


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


def in_order(data: Path, split: str, right: dict[str, bool]) -> str:
    """Which images of a split were right, in the order of their paths below its folder."""
    place = folder_of(data, split)
    names = sorted(path.relative_to(place).as_posix() for path in place.glob("*/*") if path.suffix.lower() in SUFFIXES)
    return "".join("01"[right[name]] if name in right else "-" for name in names)


def trained(data: Path, options: list[str], split: str) -> Run:
    """Train and evaluate with regraft in a new process."""
    with tempfile.TemporaryDirectory() as made, cold_cache() as cold:
        run = Path(made) / "run"
        command = [sys.executable, "-m", "regraft", "-q", "train", str(data), *options, "--out", str(run)]
        took, _ = timed(command, env=cold)
        rows = run / "predictions" / f"{split}.jsonl"
        if not rows.exists():
            timed([sys.executable, "-m", "regraft", "-q", "evaluate", str(run), "--split", split], env=cold)
        lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        right = {
            Path(line["path"]).relative_to(folder_of(data, split)).as_posix(): line["prediction"] == line["label"]
            for line in lines
            if line.get("label") is not None
        }
        return {"seconds": took, "right": in_order(data, split, right)}


def peer(data: Path, split: str, python: Path, script: str, *options: object) -> Run:
    """Train and evaluate with a peer in its environment."""
    command = [python, Path(__file__).with_name(script), data, backbone(), *options]
    _, text = timed([str(part) for part in command])
    run = json.loads(text.splitlines()[-1])
    return run | {"right": run["right"] and in_order(data, split, run["right"])}


def share(run: Run) -> tuple[float, int]:
    """The accuracy, and the number of images that it is of."""
    num = len(run["right"]) - run["right"].count("-")
    return run["right"].count("1") / num, num


def lead(run: Run, other: Run) -> str:
    """By how many points a run is ahead of another on the same images, and the 95 % interval."""
    pairs = zip(run["right"], other["right"], strict=True)
    gains = np.array([int(one) - int(two) for one, two in pairs if "-" not in (one, two)])
    draws = np.random.default_rng(0).choice(gains, (RESAMPLES, len(gains))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{100 * gains.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def foretold(run: Run, epochs: int) -> float:
    """The seconds of fine_tune(epochs), from those of fine_tune(1): its frozen epoch and the other one."""
    frozen, whole = (epoch["seconds"] for epoch in run["epochs"])
    return float(frozen + epochs * (whole - frozen))


class DataSet:
    """The runs on one data set, and what is printed of them."""

    def __init__(self, data: Path, split: str, results: Results) -> None:
        self.data, self.split, self.results = data, split, results
        self.rows: list[tuple[str, ...]] = []
        self.points: dict[str, set[Point]] = {}

    def ours(self, budgets: Sequence[str]) -> dict[str, Run]:
        """Run regraft, the head alone first."""
        kinds = {"head": ["--stages", "head"], "default": [], **{f"--budget {it}": ["--budget", it] for it in budgets}}
        runs: dict[str, Run] = {}
        for kind, options in kinds.items():
            runs[kind] = self.results.once(kind, lambda options=options: trained(self.data, options, self.split))
            against = ("", "") if kind == "head" else (lead(runs[kind], runs["head"]), "with its head")
            self.say("regraft", kind, runs[kind], *against)
        return runs

    def fastai(self, ours: dict[str, Run]) -> None:
        """Run what fastai can end in twice the longest time of regraft, and say which is best in each time."""
        longest, known = 2 * max(run["seconds"] for run in ours.values()), []
        python = environment("fastai", FASTAI)
        for epochs in EPOCHS:
            if known and foretold(known[0][1], epochs) > longest:
                break
            options = ["fine_tune", epochs, "--augment", "--split", self.split, "--limit", longest]
            name = f"fastai fine_tune({epochs}) within {longest:.0f} s"
            run = self.results.once(
                name, lambda options=options: peer(self.data, self.split, python, "fastai_peer.py", *options)
            )
            if run["right"] is None:
                break
            known.append((f"fine_tune({epochs})", run))
        for kind, mine in ours.items():
            for times in (1, 2):
                fit = [(name, run) for name, run in known if run["seconds"] <= times * mine["seconds"]]
                if fit:
                    name, run = max(fit, key=lambda pair: share(pair[1])[0])
                    self.beside("fastai", name, run, kind, mine, times)
                else:
                    self.say_none("fastai", f"none of fine_tune(N) ended in {times * mine['seconds']:.0f} s")

    def loop(self, name: str, python: Path, script: str, ours: dict[str, Run]) -> None:
        """Run a peer that takes as many epochs as fit."""
        for kind, mine in ours.items():
            limit = round(mine["seconds"])
            run = self.results.once(
                f"{name} within {limit} s",
                lambda limit=limit: peer(self.data, self.split, python, script, self.split, limit),
            )
            epochs = " + ".join(f"{number:.1f}" for number in np.atleast_1d(run["epochs"]))
            self.beside(name, f"{epochs} epochs", run, kind, mine, 1)

    def beside(self, name: str, what: str, run: Run, kind: str, mine: Run, times: int) -> None:
        allowed = "its time" if times == 1 else "twice its time"
        self.say(name, what, run, lead(mine, run), f"{kind} with this, which had {allowed}")

    def say(self, name: str, what: str, run: Run, ahead: str, compared: str) -> None:
        accuracy, num = share(run)
        low, high = wilson_interval(accuracy, num)
        row = (name, what, f"{run['seconds']:.0f}", f"{accuracy:.1%} ({low:.1%} to {high:.1%})", ahead, compared)
        self.points.setdefault(name, set()).add(Point(run["seconds"], 100 * accuracy, 100 * low, 100 * high, what))
        self.add(row)

    def say_none(self, name: str, what: str) -> None:
        self.add((name, what, "", "", "", ""))

    def add(self, row: tuple[str, ...]) -> None:
        self.rows.append(row)
        print("  {:<8} {:<16} {:>6} s  {}  {} {}".format(*row), flush=True)

    def table(self) -> str:
        head = (self.data.name, "", "seconds", "accuracy", "regraft is ahead by points", "compared")
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *self.rows))

    def save_plot(self, place: Path) -> Path:
        path = place / f"accuracy-{self.data.name}-{self.split}.svg"
        place.mkdir(parents=True, exist_ok=True)
        path.write_text(plot(f"{self.data.name}: accuracy on {self.split}", self.points), encoding="utf-8")
        return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--budgets", nargs="*", default=["2m", "10m"])
    parser.add_argument("--peers", nargs="*", default=["fastai", "timm", "keras"], choices=("fastai", "timm", "keras"))
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--images", type=int, help="of each class to train on; all")
    parser.add_argument("--plots", type=Path, default=folder(), help="where the plots go; beside the results")
    parser.add_argument("--again", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    for given in arguments.data:
        data = given.absolute() if arguments.images is None else subset(given.absolute(), arguments.images)
        results = Results("accuracy", {"data": data, "split": arguments.split}, again=arguments.again)
        print(f"{data.name}, {arguments.split}")
        runs = DataSet(data, arguments.split, results)
        ours = runs.ours(arguments.budgets)
        timed_runs = {kind: run for kind, run in ours.items() if kind != "head"}
        if "fastai" in arguments.peers:
            runs.fastai(timed_runs)
        if "timm" in arguments.peers:
            runs.loop("timm", environment("timm", TIMM), "timm_peer.py", timed_runs)
        if "keras" in arguments.peers:
            runs.loop("Keras", environment("keras", KERAS), "keras_stages_peer.py", timed_runs)
        print(f"{runs.table()}\nplot: {runs.save_plot(arguments.plots)}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
