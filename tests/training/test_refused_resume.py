"""A refused resume leaves every byte of the run folder, whatever refuses it."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import regraft as rg
from regraft import pipeline
from regraft.errors import DataError, RegraftError, SettingsError, StorageError
from regraft.run.folder import RunFolder
from tests.training.tiny import Killed, begin, few_photos_in, kill_at_step, stages, tiny_network

Settings = dict[str, Any]


def bytes_of(run: RunFolder) -> dict[str, str]:
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    return {path.relative_to(run.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three epochs of its second stage."""
    return begin(photos, tmp_path_factory.mktemp("finished") / "run", plan=stages(epochs=3))


@pytest.fixture(scope="module")
def stopped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Killed inside the second epoch of the second stage; something half-written lies about."""
    run = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.raises(Killed), kill_at_step(5):
        begin(photos, run.path, plan=stages(epochs=3), save_steps=1)
    return run


@pytest.fixture(params=["finished", "stopped"])
def run(request: pytest.FixtureRequest) -> Iterator[RunFolder]:
    """Every test has the same folder: each leaves it as it was."""
    folder: RunFolder = request.getfixturevalue(request.param)
    before = bytes_of(folder)
    yield folder
    assert bytes_of(folder) == before


def refused(run: RunFolder, change: Callable[[Settings], object], *allow: str, **options: Any) -> RegraftError:
    settings = copy.deepcopy(run.settings())
    change(settings)
    options = {"model": tiny_network(), "show": False, **options}
    with pytest.raises(RegraftError) as caught:
        pipeline.resume(run, recipe=settings, allow_change=allow, **options)
    return caught.value


def put(**values: Any) -> Callable[[Settings], object]:
    return lambda settings: settings["stages"][1].update(values)


@pytest.mark.parametrize(
    ("change", "allow"),
    [
        (put(lr=0.5), ()),
        (put(lr=0.5), ("stages.0.lr",)),
        (put(lr=0.5, train=["head"]), ("stages",)),
        (put(epochs=1), ("stages.1.epochs",)),
        (put(epochs=None, steps=1), ("stages.1",)),
        (put(lr=-1), ("stages",)),
        (put(early_stopping={"monitor": "val_f1"}), ("stages",)),
        (lambda s: s["stages"].pop(), ("stages",)),
        (lambda s: s.update(seed=9), ("seed",)),
        (lambda s: s.update(monitor="val_auc"), ("monitor",)),
        (lambda s: s.update(nonsense=1), ()),
        (lambda s: s["model"].update(image_size=64), ("model",)),
        (lambda s: s["data"].update(source="/no/such/folder"), ("data.source",)),
        (lambda s: s["data"].update(fractions=[0.5, 0.25, 0.25]), ("data.fractions",)),
        (lambda s: s["data"].update(labels="labels.csv"), ("data.labels",)),
        (lambda s: s["numerics"].update(device="cuda:7"), ("numerics",)),
    ],
)
def test_settings_that_cannot_be(run: RunFolder, change: Callable[[Settings], object], allow: tuple[str, ...]) -> None:
    assert isinstance(refused(run, change, *allow), (SettingsError, DataError))


def test_fewer_epochs_than_were_trained_are_refused_with_the_reason(finished: RunFolder) -> None:
    error = refused(finished, put(epochs=2), "stages.1.epochs")
    assert error.details == (
        "stages.1.epochs: 3 in the run, 2 now; the stage 'all' has trained 3 epochs (6 steps), which are not undone",
    )


def test_a_stage_that_early_stopping_ended_is_not_made_longer_in_silence(photos: Path, tmp_path: Path) -> None:
    rule = rg.EarlyStopping(monitor="val_loss", patience=1, min_delta=1e9)
    run = begin(photos, tmp_path / "run", plan=stages(epochs=5, early_stopping=rule))
    before = bytes_of(run)
    assert "would do nothing" in refused(run, put(epochs=9), "stages.1.epochs").details[0]
    assert bytes_of(run) == before


def test_a_running_stage_may_end_where_it_stands(stopped: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(stopped.path, tmp_path / "run"))
    settings = run.settings()
    settings["stages"][1]["epochs"] = 2
    pipeline.resume(run, recipe=settings, allow_change=["stages.1.epochs"], model=tiny_network(), show=False)
    assert run.is_finished
    assert run.read(run.last)["step"] == 2 + 2 * 2


def lose(root: Path) -> None:
    (root / "train/bright/0.png").unlink()


def spoil(root: Path) -> None:
    (root / "train/bright/0.png").write_bytes(b"not an image")


def redraw(root: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(root / "train/bright/0.png")


def lose_all(root: Path) -> None:
    shutil.rmtree(root / "val")


@pytest.mark.parametrize("harm", [lose, spoil, redraw, lose_all])
def test_images_that_are_not_the_same(
    run: RunFolder, photos: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    root = Path(shutil.copytree(photos, tmp_path / "moved"))
    harm(root)
    error = refused(run, lambda settings: settings["data"].update(source=str(root)), "data.source")
    assert isinstance(error, DataError)


def test_another_module(run: RunFolder) -> None:
    torch.manual_seed(1)
    other = rg.adapt(
        nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 5)),
        classes=("bright", "dark"),
        image_size=16,
    )
    refused(run, lambda settings: None, model=other)


def test_a_disk_that_is_full(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft import commit

    def full(*arguments: object) -> None:
        raise StorageError("There is no space left.", "", "")

    monkeypatch.setattr(commit, "require_space", full)
    assert isinstance(
        refused(run, lambda settings: settings["stages"].append(stages()[1].to_dict() | {"name": "more"}), "stages.2"),
        StorageError,
    )


def test_no_checkpoint_is_whole(stopped: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(stopped.path, tmp_path / "run"))
    for step in run.checkpoint_steps():
        (run.checkpoint(step) / "model.safetensors").write_bytes(b"")
    (run.path / "recipe.yaml.tmp").write_text("half")
    before = bytes_of(run)
    assert isinstance(refused(run, lambda settings: None), StorageError)
    assert bytes_of(run) == before
