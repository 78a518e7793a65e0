"""A process that has imported everything and forks one child for each command, so that a round costs no imports.

It reads one JSON request a line: the command's arguments, and when to kill it (a phase, which of its beginnings, and
how long after). The children say where they are by markers in a pipe, `+save` when a phase begins and `-save` when it
ends. It answers how the child ended and which phases were going on at that moment. Started by test_crash.py.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

# What is going on, by the function that does it. Children mark when each begins and ends.
PHASES = {
    "begin": ("regraft.training.open_session", "_begin"),
    "cache write": ("regraft.data.cache.disk", "DiskRows.keep"),
    "step": ("regraft.training.loop.gradient_stage", "training_step"),
    "save": ("regraft.training.checkpoint.saver", "Saver._write"),
    "rotate": ("regraft.training.checkpoint.saver", "settle"),
    "evaluate": ("regraft.training.loop.stage_run", "StageRun.validate"),
    "merge": ("regraft.training.loop.loop", "merge"),
    "stage end": ("regraft.training.loop.loop", "end_stage"),
    "stage begin": ("regraft.training.loop.loop", "begin_stage"),
    "export": ("regraft.training.delivery", "_write_model"),
    "measure": ("regraft.evaluation.evaluate", "evaluate"),
    "report": ("regraft.report.build", "write_report"),
}
_pipe = -1  # set in each child


def _mark(sign: str, phase: str) -> None:
    if _pipe >= 0:
        os.write(_pipe, f"{sign}{phase}\n".encode())


def _mark_phases() -> None:
    for phase, (module_name, attribute) in PHASES.items():
        owner: Any = importlib.import_module(module_name)
        *path, name = attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, _marked(getattr(owner, name), phase))


def _marked(real: Any, phase: str) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        _mark("+", phase)
        try:
            return real(*arguments, **options)
        finally:
            _mark("-", phase)

    return call


def _child(request: dict[str, Any], pipe: int) -> None:
    global _pipe
    _pipe = pipe
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(request["environment"])
    sys.argv = ["regraft", *request["arguments"]]
    from regraft.cli.main import run

    code = 0
    try:
        run()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Watch:
    """The markers of one child, and when to kill it."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.open: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, list[float]] = {}
        self._rest = b""

    def read(self, timeout: float | None) -> bool | None:
        """Take in markers; None when none came in time, False when the child has ended."""
        if not select.select([self.pipe], [], [], timeout)[0]:
            return None
        data = os.read(self.pipe, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            sign, phase = line.decode()[0], line.decode()[1:]
            if sign == "+":
                self.open[phase] = time.monotonic()
                self.counts[phase] = self.counts.get(phase, 0) + 1
            else:
                self.seconds.setdefault(phase, []).append(time.monotonic() - self.open.pop(phase))
        return bool(data)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(request, writing)
    os.close(writing)
    watch, kill = _Watch(reading), request.get("kill")
    while kill is not None and watch.counts.get(kill["phase"], 0) < kill["number"]:
        if watch.read(None) is False:
            kill = None
    if kill is not None:
        end = time.monotonic() + kill["after"]
        while (left := end - time.monotonic()) > 0 and watch.read(left) is not False:
            continue
        os.kill(pid, signal.SIGKILL)
    while watch.read(None):
        continue
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    mean = {phase: sum(times) / len(times) for phase, times in watch.seconds.items()}
    return {
        "code": os.waitstatus_to_exitcode(status),
        "open": sorted(watch.open),
        "counts": watch.counts,
        "seconds": mean,
    }


def main() -> None:
    import torch

    torch.set_num_threads(1)
    _mark_phases()
    importlib.import_module("regraft.cli.main")
    importlib.import_module("regraft.pipeline")
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
