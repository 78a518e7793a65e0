"""What the benchmarks against other frameworks share: environments of their own, timed processes, results that stay.

A peer runs in an environment that `uv` makes once, below `.cache/benchmarks` beside the repository's root (or in
REGRAFT_BENCHMARKS). The result of every single run is written to a JSON file as soon as it is there, so a benchmark
that was interrupted goes on where it was; `--again` forgets the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Results", "cold_cache", "environment", "folder", "machine", "median", "timed"]

# What would bind one side to fewer threads than the other; each side chooses for itself.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def folder() -> Path:
    """Where environments and results lie."""
    made = Path(os.environ.get("REGRAFT_BENCHMARKS", Path(__file__).parents[1] / ".cache" / "benchmarks")).absolute()
    made.mkdir(parents=True, exist_ok=True)
    return made


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment with these requirements, made with `uv` where it is not there yet."""
    key = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    place = folder() / f"{name}-{key}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making {place} with {', '.join(requirements)}", flush=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        outside = tempfile.gettempdir()  # where regraft's own pins do not hold
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", version, str(place)], check=True, cwd=outside)
        command = ["uv", "pip", "install", "--quiet", "--python", str(python), *requirements]
        subprocess.run(command, check=True, cwd=outside)
        (place / "complete").touch()
    return python


def timed(
    command: Sequence[str], *, until: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Wall-clock seconds of a process, or until it has written `until`, and what it printed."""
    own = {name: value for name, value in os.environ.items() if name not in _THREADS} | dict(env or {})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began, took = time.perf_counter(), None
        process = subprocess.Popen(command, stdout=out, stderr=errors, text=True, env=own)
        try:
            while process.poll() is None:
                if until is not None and took is None and until.exists():
                    took = time.perf_counter() - began
                time.sleep(0.02)
        finally:
            process.kill()
        took = time.perf_counter() - began if took is None else took
        out.seek(0), errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command[:4])} failed:\n{errors.read()[-4000:]}")
        return took, out.read()


@contextmanager
def cold_cache() -> Iterator[dict[str, str]]:
    """The variables of a run that finds no decoded pixels of an earlier one."""
    with tempfile.TemporaryDirectory(prefix="regraft-cache-") as empty:
        yield {"REGRAFT_CACHE": empty}


class Results:
    """The results of single runs by name, in a file that is written after each; `settings` are part of the file's name.

    Args:
        script: The name of the benchmark.
        settings: Everything that decides about the results, beside their names.
        again: Whether to forget what is there.
    """

    def __init__(self, script: str, settings: Any, *, again: bool = False) -> None:
        text = json.dumps([settings, machine()], sort_keys=True, default=str)
        self.path = folder() / f"{script}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        if again:
            self.path.unlink(missing_ok=True)
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.known["settings"], self.known["machine"] = json.loads(json.dumps(settings, default=str)), machine()
        known = len(set(self.known) - {"settings", "machine"})
        print(f"results: {self.path}" + (f" ({known} of earlier runs count; --again forgets them)" if known else ""))

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of this name, from the file or by doing the work now."""
        if name not in self.known:
            self.known[name] = work()
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps(self.known, indent=1))
            temporary.replace(self.path)
            print(f"  {name}: {json.dumps(self.known[name])}", flush=True)
        return self.known[name]


def machine() -> str:
    """The processor and its number of threads."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} CPUs"


def median(values: Sequence[float]) -> float:
    """The median, as every figure is given."""
    return float(statistics.median(values))
