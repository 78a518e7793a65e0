"""The Dockerfile's steps, as far as they go without Docker: what it copies, its user, its packages in a venv."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import pytest
from tests.serving.conftest import serving

ROOT = Path(__file__).parents[2]
STEPS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]


def test_what_it_copies_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in (name for kind, text in STEPS if kind == "COPY" and "--from" not in text for name in text.split()[:-1]):
        assert (ROOT / name).exists()
        assert name.split("/")[0] in kept


def test_it_runs_as_nobody_special_and_asks_for_a_token() -> None:
    last = dict(STEPS)
    assert last["USER"] == "10001"
    command = json.loads(last["ENTRYPOINT"])
    assert command[:2] == ["regraft", "serve"]
    assert "--open-to-all" not in command


def test_its_packages_are_those_that_regraft_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {*project["dependencies"], *project["optional-dependencies"]["serve"]}
    lines = (ROOT / "docker/requirements.txt").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} <= asked


@pytest.mark.slow
def test_its_packages_serve_without_torch(served_file: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("the image's packages are installed by uv, which is not here")
    python = tmp_path / "venv/bin/python"
    constraints = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
    (tmp_path / "constraints.txt").write_text("\n".join(constraints))
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    install = ["pip", "install", "--quiet", "-p", str(python)]
    steps = [
        ["venv", "--quiet", str(tmp_path / "venv")],
        [*install, "-c", str(tmp_path / "constraints.txt"), "-r", "docker/requirements.txt"],
        [*install, "--no-deps", "."],
    ]
    for step in steps:
        done = subprocess.run([uv, *step], cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode and "pip" in step and "error sending request" in done.stderr:
            pytest.skip("the image's packages cannot be downloaded: no package registry answers")
        assert done.returncode == 0, done.stderr
    size = sum(path.stat().st_size for path in (tmp_path / "venv").rglob("*") if path.is_file())
    assert size < 1e9
    with serving(served_file, python=str(python)) as server:
        address = f"http://127.0.0.1:{server.port}/healthz"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert json.load(answer)["status"] == "ok"
