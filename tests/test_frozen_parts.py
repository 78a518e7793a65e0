"""No door lets a frozen part through that the weights were meant to fill and did not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import regraft as rg
from regraft.errors import SettingsError, WeightsError
from regraft.weights.writers import keras_h5
from regraft.weights.writers.keras_tensor import KerasTensor
from tests.conftest import Cli
from tests.training.tiny import few_photos_in

HEAD = [rg.Stage("head", train="head", epochs=1, optimizer="adamw", batch_size=4)]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Convolutions as VGG has them, which fit nothing of a residual network."""
    random = np.random.default_rng(0)
    shapes = {"block1_conv1": (3, 3, 3, 5), "block1_conv2": (3, 3, 5, 5), "block2_conv1": (3, 3, 5, 9)}
    kernels = [KerasTensor(name, "kernel", random.normal(size=shape).astype("f4")) for name, shape in shapes.items()]
    keras_h5.write(tmp_path / "vgg.h5", kernels)
    return tmp_path / "vgg.h5"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return few_photos_in(tmp_path / "images")


def adapted(model: nn.Module) -> nn.Module:
    return rg.adapt(model, classes=("bright", "dark"), image_size=32)


def train(model: nn.Module, images: Path, out: Path, stages: list[rg.Stage] = HEAD) -> str:
    """Train, and give the run's log."""
    run = rg.train(model, rg.make_plan(model, stages), rg.open_data(images), out=out, show=False)
    return run.log.read_text()


def test_graft_refuses_a_file_for_another_network(foreign: Path) -> None:
    model = rg.build_model("test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = rg.match_weights(rg.read_weights(foreign), model)
    with pytest.raises(WeightsError, match="nothing in the file fits the model"):
        rg.graft(model, report)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert rg.graft(model, report, require=None) is model
    with pytest.raises(SettingsError, match="'everything'"):
        rg.graft(model, report, require="everything")


def test_graft_may_require_all(tmp_path: Path) -> None:
    source, model = rg.build_model("test_resnet", classes=7), rg.build_model("test_resnet", classes=3, seed=1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    report = rg.match_weights(rg.read_weights(tmp_path / "w.pth"), model)
    with pytest.raises(WeightsError, match="fc"):
        rg.graft(model, report, require="all")
    rg.graft(model, report)
    assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)


@pytest.mark.parametrize("own", [False, True])
def test_train_refuses_a_frozen_part_that_nothing_filled(
    foreign: Path, images: Path, tmp_path: Path, own: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    model = model if own else rg.build_model("test_resnet")
    model = adapted(rg.graft(model, rg.match_weights(rg.read_weights(foreign), model), require=None))
    with pytest.raises(WeightsError, match=r"Stage 'head' keeps layers frozen that the weights did not fill"):
        train(model, images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    everything = [rg.Stage("all", train="all", epochs=1, batch_size=4), *HEAD]
    assert "frozen with random weights" not in train(model, images, tmp_path / "run", everything)


def test_one_layer_that_the_file_lacks_is_named(images: Path, tmp_path: Path) -> None:
    state = rg.build_model("test_resnet", seed=1).state_dict()
    torch.save({name: value for name, value in state.items() if "layer2.0.conv1" not in name}, tmp_path / "w.pth")
    model = rg.build_model("test_resnet")
    report = rg.match_weights(rg.read_weights(tmp_path / "w.pth"), model)
    partly = adapted(rg.graft(model, report, require=None))
    with pytest.raises(WeightsError, match=r"did not fill: layer2\.0\.conv1\."):
        train(partly, images, tmp_path / "run")
    model = rg.build_model("test_resnet")
    asked = rg.match_weights(rg.read_weights(tmp_path / "w.pth"), model, skip=["layer2.0.conv1"])
    assert "keeps layer2.0.conv1 frozen with random weights" in train(
        adapted(rg.graft(model, asked)), images, tmp_path / "asked"
    )


def test_random_weights_on_purpose_are_said(images: Path, tmp_path: Path, cli: Cli) -> None:
    said = "keeps conv1.0, conv1.3"
    assert said in train(adapted(rg.build_model("test_resnet")), images, tmp_path / "run")
    options = ("--model", "test_resnet", "--image-size", "32", "--stages", "head", "--set", "model.weights=none")
    run = cli("train", images, *options, "--out", tmp_path / "cli")
    assert (run.code, said in run.err) == (0, True)
    assert said in cli("train", images, *options, "--dry-run").out


def test_the_range_test_refuses_and_says_the_same(
    foreign: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = rg.open_data(images)
    model = rg.build_model("test_resnet")
    wrong = adapted(rg.graft(model, rg.match_weights(rg.read_weights(foreign), model), require=None))
    with pytest.raises(WeightsError, match=r"Stage 'head' keeps layers frozen that the weights did not fill"):
        rg.find_lr(wrong, HEAD[0], data, steps=10)
    assert not caplog.records
    rg.find_lr(adapted(rg.build_model("test_resnet")), HEAD[0], data, steps=10)
    assert "keeps conv1.0, conv1.3" in caplog.text


def test_values_from_anywhere_count_as_filled(images: Path, tmp_path: Path) -> None:
    """`load_state_dict` by hand, a timm model, a module of one's own: where values come from is the user's matter."""
    by_hand = rg.build_model("test_resnet")
    by_hand.load_state_dict(rg.build_model("test_resnet", seed=1).state_dict())
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    for number, model in enumerate((by_hand, own)):
        assert "random weights" not in train(adapted(model), images, tmp_path / str(number))
