"""A server of the tiny run's export, in a process of its own, as people start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import regraft as rg


class Server:
    """Where it is, and its process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port


@contextmanager
def serving(model: Path, *options: str, token: str = "", python: str = sys.executable) -> Iterator[Server]:
    """Start `regraft serve`, and end it."""
    command = [python, "-m", "regraft", "serve", str(model), "--port", "0", "--threads", "1", *options]
    environment = {**os.environ, "REGRAFT_TOKEN": token}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r" at http://\S+:(\d+)$", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits
                yield Server(process, int(found[1]))
                break
        else:
            raise AssertionError(f"it did not start: {said}")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def served_file(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rg.export(tiny_run, tmp_path_factory.mktemp("served") / "tiny.onnx", verify=0).path


@pytest.fixture(scope="session")
def server(served_file: Path) -> Iterator[Server]:
    """With small limits, which tests can reach."""
    with serving(served_file, "--max-mb", "1", "--max-megapixels", "1", "--seconds", "2", "--queue", "40") as one:
        yield one
