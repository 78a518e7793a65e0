"""One image alone in a batch, where batch norms train: batches are divided so that there is none, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import regraft as rg
from regraft.data.cache.loader import batch_bounds
from regraft.errors import SettingsError
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.loop import gradient_stage
from regraft.training.preflight.find_lr import find_lr
from tests.training.tiny import Killed, few_photos_in, kill_at_step


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("num", [1, 2, 3, 5, 8, 9, 17, 33])
def test_batches_keep_rows_order_and_number_and_leave_none_with_one(num: int, batch_size: int) -> None:
    plain, divided = batch_bounds(num, batch_size), batch_bounds(num, batch_size, fewest=2)
    assert len(divided) == len(plain) == -(-num // batch_size) + 1
    assert (divided[0], divided[-1]) == (0, num)
    sizes = np.diff(divided)
    if num % batch_size != 1 or batch_size == 1:
        assert divided.tolist() == plain.tolist(), "nothing changes where the last batch has more than one"
    elif batch_size > 2 and num > 1:
        assert sizes.min() == 2
        assert sizes[:-2].tolist() == [batch_size] * (len(sizes) - 2)
    assert sizes.max() <= batch_size


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine training images: the last batch of four has one."""
    root = few_photos_in(tmp_path_factory.mktemp("nine"))
    Image.fromarray(np.full((20, 20, 3), 160, np.uint8)).save(root / "train/bright/9.png")
    return root


def normed() -> nn.Module:
    """A network whose batch norm sees maps of one pixel: in training, torch refuses a batch of one image."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return rg.adapt(nn.Sequential(*layers, nn.Linear(4, 5)), classes=("bright", "dark"), image_size=16)


def run(photos: Path, out: Path, model: nn.Module | None = None, **settings: Any) -> Any:
    options = {key: settings.pop(key) for key in ("resume",) if key in settings}
    stage = rg.Stage(
        **{"name": "all", "train": "all", "optimizer": "sgd", "epochs": 2, "batch_size": 4, "bn": "train", **settings}
    )
    model = model or normed()
    return rg.train(model, rg.make_plan(model, [stage]), rg.open_data(photos), out=out, show=False, **options)


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate": 2}, {"sampling": "balanced"}, {"mixup": 0.4}, {"class_weights": [1.0, 2.0]}, {"ema": 0.9}],
)
def test_a_last_batch_of_one_is_divided(
    nine: Path, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = gradient_stage.training_step

    def step(engine: Any, program: Any, batches: Any, *rest: Any) -> float:
        def counted() -> Any:
            for batch in batches:
                seen.append(len(batch[1]))
                yield batch

        return original(engine, program, counted(), *rest)

    monkeypatch.setattr(gradient_stage, "training_step", step)
    done = run(nine, tmp_path / "run", **settings)
    assert seen == [4, 3, 2] * 2
    steps = 2 if "accumulate" in settings else 3
    assert [row["step"] for row in read_metrics(done.metrics)] == [steps, 2 * steps]


@pytest.fixture(scope="module")
def divided(nine: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(nine, tmp_path_factory.mktemp("runs") / "divided")


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_divided_run_resumes_to_the_same_bits(nine: Path, divided: RunFolder, tmp_path: Path, number: int) -> None:
    with kill_at_step(number), pytest.raises(Killed):
        run(nine, tmp_path / "killed", accumulate=1)
    again = run(nine, tmp_path / "killed", resume=True)
    keys = ("train_loss", "val_loss", "step")
    rows = [[{key: row[key] for key in keys} for row in read_metrics(done.metrics)] for done in (divided, again)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 2}])
def test_what_cannot_be_divided_is_refused_before_anything_is_written(
    nine: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match="one image alone") as caught:
        run(nine, tmp_path / "run", **settings)
    assert "`batch_size: 3`" in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert run(nine, tmp_path / "still", bn="frozen", **settings).is_finished
    assert run(nine, tmp_path / "short", steps=1, epochs=None, batch_size=2).is_finished, "no epoch comes to its end"


def test_one_training_image_is_refused_where_it_cannot_train(nine: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    data, model = rg.open_data(nine), normed()
    data = replace(data, splits={**data.splits, "train": data.train.take(np.array([0]))})
    plan = rg.make_plan(model, [rg.Stage("all", train="all", optimizer="sgd", epochs=1, bn="train")])
    with pytest.raises(SettingsError, match="one training image"):
        rg.train(model, plan, data, out=tmp_path / "run", show=False)


def test_a_range_test_with_single_images_is_refused(nine: Path) -> None:
    stage = rg.Stage("all", train="all", optimizer="sgd", batch_size=1, bn="train")
    with pytest.raises(SettingsError, match="one image alone"):
        find_lr(normed(), stage, rg.open_data(nine), steps=10)


def test_batch_norms_of_larger_maps_take_one_image_and_still_get_two(nine: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = rg.adapt(nn.Sequential(*layers, nn.Linear(4, 5)), classes=("bright", "dark"), image_size=16)
    assert run(nine, tmp_path / "run", model, batch_size=1, epochs=1).is_finished


def test_a_dry_run_sees_it(nine: Path) -> None:
    from regraft.assembly.rehearsal import rehearse

    stage = {"name": "all", "train": "all", "epochs": 1, "optimizer": "sgd", "batch_size": 2, "bn": "train"}
    model = {"name": "test_resnet", "weights": "none", "image_size": 32}
    with pytest.raises(SettingsError, match="one image alone"):
        rehearse({"model": model, "data": {"source": str(nine)}, "stages": [stage]})
