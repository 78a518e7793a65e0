"""What a change costs: whole commands of this checkout beside those of another commit, in turn, in one run.

    uv run python benchmarks/beside_commit.py COMMIT [PHOTOS] [--rounds 3] [--num 1000]

PHOTOS has train and validation, in JPEG; without it, REGRAFT_SHARED/data/dogs-vs-cats-small. The other commit is cloned
and installed below `.cache/benchmarks`. Each side is a process of its own; medians are compared.

- *predict*: `regraft predict RUN FOLDER` on so many photos of 224 px, of an untrained EfficientNet-lite0;
- *head*: `regraft train PHOTOS --stages head`, evaluation and report included, without decoded pixels of earlier runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from peers import cold_cache, folder, machine, median, timed
from predict import MODEL, gather

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num", type=int, default=1000, help="photos to predict")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or a side that was never started compiles all modules each time
    shared = Path(os.environ.get("REGRAFT_SHARED", ROOT.parent / "shared"))
    photos = (given.photos or shared / "data" / "dogs-vs-cats-small").absolute()
    sides = {"before": installed(given.commit), "now": Path(sys.executable)}
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as work:
        run, some = Path(work) / "run", gather(photos, given.num, Path(work) / "photos")
        subprocess.run([sys.executable, "-c", MODEL, str(run), "tf_efficientnet_lite0", "224"], check=True)

        def predict(python: Path) -> float:
            return timed([str(python.with_name("regraft")), "predict", str(run), str(some), "--json"])[0]

        def head(python: Path) -> float:
            out = Path(work) / "head"
            command = [str(python.with_name("regraft")), "train", str(photos), "--stages", "head", "--out", str(out)]
            with cold_cache() as variables:
                seconds = timed(command, env=variables)[0]
            shutil.rmtree(out)
            return seconds

        compare(f"predict {given.num} photos", predict, sides, given.rounds)
        compare("head", head, sides, given.rounds)


def installed(commit: str) -> Path:
    """The Python of a clone at a commit, with its dependencies."""
    place = folder() / f"regraft-{commit[:12]}"
    if not (place / ".venv" / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
        subprocess.run(["git", "-C", str(place), "checkout", "--quiet", commit], check=True)
        subprocess.run(["uv", "sync", "--quiet"], check=True, cwd=place)
        (place / ".venv" / "complete").touch()
    return place / ".venv" / "bin" / "python"


def compare(name: str, run: Callable[[Path], float], sides: dict[str, Path], rounds: int) -> None:
    """Run both sides once to warm up, then in turn, and print all times."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, python in sides.items():
            took = run(python)
            if number:
                seconds[side].append(took)
    before, now = (median(times) for times in seconds.values())
    shown = "; ".join(f"{side} {', '.join(f'{took:.2f}' for took in times)}" for side, times in seconds.items())
    print(
        f"{name}: {before:.2f} -> {now:.2f} s, {now / before:.2f}x ({shown}; load {os.getloadavg()[0]:.1f})", flush=True
    )


if __name__ == "__main__":
    main()
