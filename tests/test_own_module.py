"""The pipe takes the user's own `nn.Module` in the place of `build_model`, from adapt to predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.errors import SettingsError

FP32 = Numerics("cpu", "fp32", True, 1)


class Small(nn.Module):
    """A network as people write their first one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
        )
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.features(x).mean((2, 3))))


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None)


@pytest.mark.parametrize("build", [small, pytest.param(resnet18, marks=pytest.mark.slow)])
def test_from_adapt_to_predict(build: Callable[[], nn.Module], tiny_photos: Path, tmp_path: Path) -> None:
    data = rg.open_data(tiny_photos)
    model = rg.adapt(build(), classes=data.class_names, image_size=32)
    plan = rg.make_plan(
        model, [rg.Stage("head", epochs=1), rg.Stage("all", train="all", optimizer="adam", epochs=2, lr=1e-3)]
    )
    run = rg.train(model, plan, data, out=tmp_path / "run", batch_size=8, numerics=FP32, show=False)

    with pytest.raises(SettingsError, match="module of your own"):
        rg.load_model(run.path)
    with pytest.raises(SettingsError, match="module of your own"):
        rg.evaluate(run)
    assert rg.evaluate(run, model=build())["label"] == "test"
    assert rg.write_report(run).is_file()
    loaded = rg.load_model(run.path, model=build())
    rows = rg.predict(loaded, tiny_photos, numerics=FP32)
    assert len(rows) == 36
    assert {row.prediction for row in rows} <= {"blue", "green", "red"}
    trained = rg.predict(model.eval(), tiny_photos, numerics=FP32)
    assert [row.probabilities for row in trained] == [row.probabilities for row in rows]
