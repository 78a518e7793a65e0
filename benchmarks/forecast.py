"""How near `regraft train --dry-run` comes to the time that the run then takes, and how long it takes itself.

    uv run python benchmarks/forecast.py PHOTOS [--rounds 3] [--case head] [--image-size 160] [--cpu]

Each round forecasts a run and carries it out at once, so that both find the same machine; whole commands are timed,
from the start of the process. Runs find no pixels that an earlier one decoded. With `--cpu` one thread computes, and
seconds of the processor stand for those of the clock on both sides, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from peers import cold_cache, median, timed

_ALL = """
stages:
- {name: all, train: all, epochs: 2, optimizer: adamw, lr: 1.0e-4, augment: {flip: horizontal}}
"""
CASES = {
    "head": ["--stages", "head"],
    "default recipe": [],
    "all layers, 2 epochs": ["--recipe", "all.yaml"],
    "test_resnet": ["--model", "test_resnet", "--set", "model.weights=none"],
}
_ON_THE_PROCESSOR = """
import time
time.perf_counter = time.process_time
from regraft.cli import main
from regraft.run import invocation
invocation.seconds_so_far = time.process_time
main.run()
"""


def command(*arguments: str, cpu: bool) -> tuple[float, str]:
    """Seconds of a regraft command, on the clock or of the processor, and what it printed."""
    if not cpu:
        return timed([sys.executable, "-m", "regraft", *arguments])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", _ON_THE_PROCESSOR, *arguments, "--threads", "1"]
    printed = timed(program, env={"OMP_NUM_THREADS": "1"})[1]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, printed


def foreseen(text: str) -> float:
    """The seconds of the line `whole run: about ...`."""
    found = re.search(r"whole run: about (?:(\d+) h )?(?:(\d+) min)? ?(?:(\d+) s)?", text)
    if found is None:
        raise SystemExit(f"no forecast in:\n{text}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def compare(photos: Path, options: Sequence[str], cpu: bool) -> tuple[float, float, float]:
    """Seconds of the dry run, seconds that it foresees, and seconds of the run."""
    with tempfile.TemporaryDirectory() as folder, cold_cache() as cache:
        os.environ.update(cache)
        (Path(folder) / "all.yaml").write_text(_ALL)
        given = [str(Path(folder) / part) if part == "all.yaml" else part for part in options]
        itself, text = command("train", str(photos), *given, "--dry-run", cpu=cpu)
        real = command("train", str(photos), *given, "--out", str(Path(folder) / "run"), cpu=cpu)[0]
    return itself, foreseen(text), real


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, default=None)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--cpu", action="store_true")
    chosen = parser.parse_args()
    print("case: dry run, foreseen, real (s), foreseen / real, load")
    for case, options in CASES.items():
        if chosen.case not in (None, case):
            continue
        ratios = []
        for _ in range(chosen.rounds):
            load = os.getloadavg()[0]
            asked = [*options, "--image-size", str(chosen.image_size)]
            itself, expected, real = compare(chosen.photos, asked, chosen.cpu)
            ratios.append(expected / real)
            print(f"{case}: {itself:.1f}, {expected:.0f}, {real:.1f}, {ratios[-1]:.2f}, load {load:.1f}", flush=True)
        print(f"{case}: foreseen / real {median(ratios):.2f} in the median of {len(ratios)}", flush=True)


if __name__ == "__main__":
    main()
