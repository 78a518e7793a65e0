"""Small photos, tiny data sets, and one tiny trained run that many tests share."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Each of pytest's workers keeps to one processor, and so do the processes that it starts: threads of torch that wait
# for those of the other worker cost more than these small networks do (measured: 57 s in the place of 0.8 s). torch
# reads it when it is imported, so this stands before that.
if hasattr(os, "sched_setaffinity") and "PYTEST_XDIST_WORKER" in os.environ:
    _cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cpus[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(_cpus)]})

os.environ["REGRAFT_LANG"] = "en"  # whatever the developer's own
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)  # or commands would be printed as `uv run` has them

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

# No test is timed: on a machine that others share, one example may take a hundred times as long as the next.
settings.register_profile("untimed", settings.get_profile("ci" if os.environ.get("CI") else "default"), deadline=None)
settings.load_profile("untimed")

REAL_FSYNC = os.fsync
TINY_MODEL = "test_efficientnet"
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device; on a machine with one, type `uv run pytest -m gpu`"
)
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test after `REGRAFT_TESTS_UNTIL`, in seconds since 1970; `-r s` names those that are left out."""
    until = os.environ.get("REGRAFT_TESTS_UNTIL")
    if until and time.time() > float(until):
        alone = f"uv run pytest -m '' '{item.nodeid}'"
        pytest.skip(f"the time that REGRAFT_TESTS_UNTIL leaves for tests is over; to run it alone: {alone}")


def photo(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 48)) -> Path:
    """Write a noisy picture (height, width) of one colour; the suffix chooses the format."""
    noise = np.random.default_rng([seed, *colour]).normal(0, 40, (*size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)
    return path


def photos(root: Path, classes: dict[str, int], *, seed: int = 0) -> Path:
    """`root/class/*.png`, so many for each class; the colour of a class follows from its name."""
    for place, (name, count) in enumerate(classes.items()):
        colour = COLOURS.get(name, [(200, 50, 40), (40, 180, 60), (40, 60, 200), (150, 150, 30)][place % 4])
        for number in range(count):
            photo(root / name / f"{number:03}.png", colour, seed * 1000 + number)
    return root


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `regraft ARGUMENTS` in this process: cli("predict", run, folder, stdin=b"...")."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        from regraft.cli.main import run

        threads = torch.get_num_threads()
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["regraft", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setenv("COLUMNS", "200")
            try:
                run()
            except SystemExit as end:
                code = int(end.code or 0)
        torch.set_num_threads(threads)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))  # type: ignore[attr-defined]
        return Result(code, *texts)

    return call


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches of tests, and of the commands that they start, never lie in the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("REGRAFT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def disk_that_is_not_waited_for() -> Iterator[None]:
    """`fsync` waits for the disk, thousands of times, for what only a power cut could take away; tests cut no power.

    A closed file is an error still. The tests of `commit`, and processes that tests start, keep the real one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12 pictures in `root/class/*`: regraft draws train, val and test itself."""
    return photos(tmp_path_factory.mktemp("data") / "colours", {"blue": 12, "green": 12, "red": 12})


@pytest.fixture(scope="session")
def tiny_run(tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages on `tiny_photos`, evaluated; tests that change it copy it first."""
    import regraft as rg

    data = rg.open_data(tiny_photos)
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    stages = [rg.Stage("head", epochs=2), rg.Stage("top", train=["stage:-1", "head"], epochs=1, lr=1e-3)]
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run = rg.train(model, rg.make_plan(model, stages), data, out=out, batch_size=8, show=False)
    rg.evaluate(run)
    return run.path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights; tests that need it are skipped, with the reason, where it is not."""
    path = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip(f"there is no {path}; set REGRAFT_SHARED to the folder with the shared data")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
