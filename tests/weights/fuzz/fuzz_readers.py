"""Feeds damaged files to all readers of weights until something breaks that should not.

    uv run python tests/weights/fuzz/fuzz_readers.py --count 2000000

Every input is a function of its number, so a finding can be had again: `--only NUMBER`. A worker reads each as
`regraft.read_weights` does, loads every tensor, and prints some as `regraft inspect` does. Allowed is a file that is
read, or a `WeightsError`. A finding is any other error (also one that only the last net of `read_weights` would have
put into words), a crash, more than 10 seconds of the processor or a minute without an end, or memory beyond 2 GB.
Findings are kept under `--keep`; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "readers")]

from mutations import mutated  # noqa: E402
from seeds import Seed, seeds  # noqa: E402

from regraft.errors import WeightsError  # noqa: E402
from regraft.weights import limits  # noqa: E402
from regraft.weights.file import READERS, read_weights  # noqa: E402
from regraft.weights.inspection import describe, render  # noqa: E402
from regraft.weights.readers.hdf5 import hdf5  # noqa: E402

SECONDS = 10
MEMORY = 2 << 30
DESCRIBED = 16  # one of so many is also printed


class TooSlow(BaseException):
    """Nothing in the readers catches it."""


def input_of(number: int, all_seeds: list[Seed]) -> tuple[Seed, bytes]:
    """The damaged file of this number, and the seed that it was."""
    numbers = random.Random(number)
    seed = all_seeds[number % len(all_seeds)]
    return seed, mutated(seed, all_seeds, numbers)


def attempt(number: int, all_seeds: list[Seed], folder: Path) -> tuple[str, str]:
    """What became of one input: (`read`, `refused` or the name of an error, details)."""
    seed, content = input_of(number, all_seeds)
    path = folder / seed.name
    path.write_bytes(content)
    for name, beside in seed.beside:
        (folder / name).write_bytes(beside)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        weights = read_weights(path)
        for tensor in weights:
            if tensor.load().shape != tensor.shape:
                return "WrongShape", f"{tensor.name}: {tensor.shape}"
        if number % DESCRIBED == 0:
            render(describe(weights))
    except WeightsError as error:
        whole = bool(error.what and len(str(error)) < 20_000)
        return ("refused", "") if whole else ("WordlessError", str(error)[:500])
    except (Exception, TooSlow):
        return type(sys.exc_info()[1]).__name__, traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
        for name, _ in seed.beside:
            (folder / name).unlink()
    return "read", ""


def prepare() -> None:
    """Take off the last net, so that an untyped error is seen; start no process for the newer layout of HDF5."""
    limits._DAMAGE = (_NothingError,)  # type: ignore[assignment]
    hdf5.rewritten = _no_child  # type: ignore[assignment]
    for reader in READERS.values():  # an import is no part of an input's time
        importlib.import_module(reader)
    signal.signal(signal.SIGPROF, _alarm)


class _NothingError(Exception):
    """Never raised."""


def _no_child(*_: Any) -> Any:
    raise WeightsError("Not in this test.", "-", "-")


def _alarm(*_: Any) -> None:
    raise TooSlow


def work(first: int, last: int, step: int, all_seeds: list[Seed], beat: Any, results: Any) -> None:
    """A worker: every `step`-th input from `first`; `beat` holds the number of the one in hand."""
    import resource

    prepare()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + _address_space(), -1))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for number in range(first, last, step):
            beat.value = number
            outcome, details = attempt(number, all_seeds, Path(folder))
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                results.put(("finding", number, outcome, details))
            if sum(counts.values()) % 1000 == 0:
                results.put(("counts", number, dict(counts), ""))
                counts.clear()
    results.put(("counts", last, dict(counts), ""))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE if Path("/proc").is_dir() else 8 << 30


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", type=int, help="read one input here, without a worker, and write it to --keep")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for findings")
    options = parser.parse_args(arguments)
    all_seeds = seeds()
    if options.only is not None:
        prepare()
        _keep(options.keep, options.only, all_seeds, "", "")
        with tempfile.TemporaryDirectory() as folder:
            print(*attempt(options.only, all_seeds, Path(folder)), sep="\n")
        return 0
    counts, findings = run(options.start, options.count, options.workers, all_seeds, options.keep)
    print(json.dumps({"inputs": sum(counts.values()), **counts, "findings": findings}))
    return 1 if findings else 0


def run(start: int, count: int, workers: int, all_seeds: list[Seed], keep: Path) -> tuple[dict[str, int], int]:
    """Read `count` inputs; how many were read, refused, or something else, and the number of findings."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    crew = [_Worker(context, start + place, start + count, workers, all_seeds, results) for place in range(workers)]
    counts: Counter[str] = Counter()
    findings, told = 0, time.monotonic()
    while any(one.busy for one in crew) or not results.empty():
        try:
            kind, number, outcome, details = results.get(timeout=1)
            if kind == "counts":
                counts.update(outcome)
            else:
                findings += 1
                _keep(keep, number, all_seeds, outcome, details)
        except Exception:  # nothing new for a second
            for one in crew:
                lost = one.lost()
                if lost:
                    findings += 1
                    counts["lost"] += 1
                    _keep(keep, lost[0], all_seeds, lost[1], "")
                    one.restart(lost[0] + workers)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(json.dumps({"inputs": sum(counts.values()), **counts, "findings": findings}), flush=True)
    return dict(counts), findings


class _Worker:
    """A process, and what it has in hand."""

    def __init__(self, context: Any, first: int, last: int, step: int, all_seeds: list[Seed], results: Any) -> None:
        self.context, self.last, self.step, self.seeds, self.results = context, last, step, all_seeds, results
        self.restart(first)

    def restart(self, first: int) -> None:
        self.beat = self.context.Value("q", first)
        arguments = (first, self.last, self.step, self.seeds, self.beat, self.results)
        self.process = self.context.Process(target=work, args=arguments)
        self.process.start()
        self.seen, self.since = first, time.monotonic()

    @property
    def busy(self) -> bool:
        return self.process.is_alive() or self.process.exitcode != 0

    def lost(self) -> tuple[int, str] | None:
        """The input that killed it, or that it hangs on beyond all alarms."""
        number = self.beat.value
        if not self.process.is_alive() and self.process.exitcode != 0:
            return number, f"Exit{self.process.exitcode}"
        if number != self.seen:
            self.seen, self.since = number, time.monotonic()
        elif self.process.is_alive() and time.monotonic() - self.since > 6 * SECONDS:
            self.process.kill()
            self.process.join()
            return number, "Hang"
        return None


def _keep(folder: Path, number: int, all_seeds: list[Seed], outcome: str, details: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    seed, content = input_of(number, all_seeds)
    (folder / f"{number}-{seed.name}").write_bytes(content)
    if outcome:
        (folder / f"{number}.txt").write_text(f"{outcome}\n{details}")
        print(f"finding {number} ({seed.format}): {outcome}\n{details}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
