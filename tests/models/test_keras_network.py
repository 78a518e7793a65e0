"""`keras:NAME`: networks that Keras builds, in freeze plans, selectors, surgery, the training loop and folders."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import photos
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import regraft as rg
from regraft.compute.graph import trace_graph
from regraft.errors import SettingsError, StoppedError
from regraft.models.describe.info import info_of
from regraft.models.layers.layers import list_layers
from regraft.models.networks.names import is_buildable, list_models
from regraft.models.zoo.build import build_model
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import freeze
from regraft.plan.freezing.select import select

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras warns at nearly every call
SIDE = 32
IMAGES = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def keras() -> Iterator[Any]:
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    module = pytest.importorskip("keras", reason="Keras is not installed; type `pip install 'regraft[keras]'`")
    if module.backend.backend() != "torch":
        pytest.skip(f"keras was imported with the backend {module.backend.backend()} before")
    yield module
    if before is None:
        os.environ.pop("KERAS_BACKEND", None)


@pytest.fixture(scope="module")
def small(keras: Any) -> nn.Module:
    """A quarter of a MobileNet, with statistics that are not the identity."""
    model = build_model("keras:MobileNet", alpha=0.25, classes=["a", "b", "c"], image_size=SIDE)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + (0.9 if name.endswith("var") else -0.1))
        elif name.endswith("weight") and tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
    return model


def twin(keras: Any, folder: Path) -> Any:
    """Keras's own, with random weights, saved."""
    model = keras.applications.MobileNet(
        weights=None, classes=3, classifier_activation=None, input_shape=(SIDE, SIDE, 3), alpha=0.25, dropout=0.0
    )
    rng = np.random.default_rng(3)
    for layer in model.layers:
        layer.set_weights([w + rng.random(w.shape).astype(w.dtype) * 0.1 for w in layer.get_weights()])
    model.save_weights(folder / "net.weights.h5")
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    after = model.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def train_steps(model: nn.Module, count: int = 3) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-2)
    model.train()
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(IMAGES), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def test_weights_from_a_file_give_keras_s_numbers_and_its_training_step(keras: Any, tmp_path: Path) -> None:
    theirs = twin(keras, tmp_path)
    ours = build_model("keras:MobileNet", weights=tmp_path / "net.weights.h5", alpha=0.25, dropout=0.0, image_size=SIDE)
    assert info_of(ours).args["num_classes"] == 3
    assert info_of(ours).new_layers == ()
    images = IMAGES.permute(0, 2, 3, 1).numpy()
    for training in (False, True):
        with torch.no_grad():
            expected = theirs(images, training=training).detach()
            assert (ours.train(training)(IMAGES) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert sum(row.num_parameters for row in list_layers(ours)) == theirs.count_params()
    bn = theirs.get_layer("conv_pw_13_bn")
    assert torch.allclose(ours.get_buffer("conv_pw_13_bn.running_mean"), bn.moving_mean.value, atol=1e-6)
    rows = info_of(ours).origin.keras_rows
    assert [(name, kind) for name, kind, _ in rows] == [
        (layer.name, type(layer).__name__) for layer in theirs.layers[: len(rows)]
    ]


def test_names_shapes_and_selectors_are_keras_s(small: nn.Module) -> None:
    layers = {layer.name: layer for layer in list_layers(small)}
    assert layers["conv1"].kind == "Conv2D"
    assert layers["conv1"].output_shape == (8, SIDE // 2, SIDE // 2)
    assert layers["conv_dw_2"].kind == "DepthwiseConv2D"
    assert layers["conv_preds"].part == "head"
    assert select(small, "head") == {"conv_preds"}
    assert select(small, "type:DepthwiseConv2D") == {f"conv_dw_{number}" for number in range(1, 14)}
    assert select(small, "last:3") == {"conv_pw_13_bn", "conv_pw_13"}
    assert select(small, "from:conv_pw_13, !head") == {"conv_pw_13_bn", "conv_pw_13"}
    assert "conv_pw_13" in select(small, "stage:-1")
    with pytest.raises(SettingsError, match="conv_pw_13"):
        select(small, "conv_pw_31")


def test_it_is_traced_copied_and_pickled(small: nn.Module) -> None:
    assert trace_graph(small) is not None
    with torch.no_grad():
        expected = small.eval()(IMAGES)
        for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
            assert torch.equal(copied.eval()(IMAGES), expected)
            assert copied.state_dict().keys() == small.state_dict().keys()


@pytest.mark.parametrize("seed", range(6))
def test_what_is_frozen_does_not_move(small: nn.Module, seed: int) -> None:
    model, rng = copy.deepcopy(small), random.Random(seed)
    names = sorted(select(model, "backbone"))
    chosen = [*rng.sample(names, rng.randint(1, 8)), "head"]
    plan = freeze(model, chosen, bn=rng.choice([None, "train", "affine-only"]))
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    model = copy.deepcopy(model)
    before, snapshot = state_of(model), Snapshot.take(model, plan)
    train_steps(model)
    moved = changed(before, model)
    assert not moved & {*plan.frozen, *plan.still}
    assert set(plan.trainable) <= moved
    assert moved - set(plan.trainable) <= set(plan.moving)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == kinds
    group = {"params": [p for p in model.parameters() if p.requires_grad], "lr": 0.1}
    assert snapshot.audit(model, torch.optim.SGD([group])).verdict == "ok"


@pytest.mark.parametrize("wrap", ["pickle", "save", pytest.param("compile", marks=pytest.mark.slow), "ddp"])
def test_what_is_frozen_stays_so_inside_what_wraps_it(small: nn.Module, wrap: str, tmp_path: Path) -> None:
    model = copy.deepcopy(small)
    plan = freeze(model, ["conv_pw_13", "head"])
    if wrap == "ddp":
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        if wrap == "pickle":
            outer = model = pickle.loads(pickle.dumps(model))
        elif wrap == "save":
            torch.save(model, tmp_path / "model.pt")
            outer = model = torch.load(tmp_path / "model.pt", weights_only=False)
        else:
            outer = torch.compile(model, backend="eager") if wrap == "compile" else DistributedDataParallel(model)
        before = state_of(model)
        train_steps(outer)
        assert changed(before, model) == set(plan.trainable)
    finally:
        if wrap == "ddp":
            torch.distributed.destroy_process_group()


def test_each_policy_of_a_batch_norm(small: nn.Module) -> None:
    for policy, statistics, affine in (("train", True, True), ("affine-only", False, True), ("frozen", False, False)):
        model = copy.deepcopy(small)
        freeze(model, ["conv_pw_13", "conv_pw_13_bn", "head"], bn=policy)
        before = state_of(model)
        train_steps(model)
        moved = changed(before, model)
        assert ("conv_pw_13_bn.running_mean" in moved) == statistics
        assert ("conv_pw_13_bn.weight" in moved) == affine


def test_dropout_is_a_function_of_the_seed_and_off_where_it_is_frozen(keras: Any) -> None:
    model = build_model("keras:MobileNet", alpha=0.25, dropout=0.5, classes=3, image_size=SIDE)

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return model(IMAGES)

    freeze(model, "head")
    model.train()
    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    freeze(model, "conv1", trained={"conv_preds"})
    model.train()
    assert torch.equal(logits(1), logits(2))


def test_no_part_of_the_caller_s_randomness_is_used(keras: Any) -> None:
    torch.manual_seed(5)
    random.seed(5)
    drawn = torch.rand(1), random.random()
    torch.manual_seed(5)
    random.seed(5)
    one, two = (build_model("keras:MobileNet", alpha=0.25, seed=4).state_dict() for _ in range(2))
    assert (torch.rand(1), random.random()) == drawn
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build_model("keras:MobileNet", alpha=0.25, seed=5)
    assert not torch.equal(one["conv1.weight"], other.get_parameter("conv1.weight"))


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (rg.Head(), 2),
        (rg.Head(dropout=0.5), 2),
        (rg.Head(pool="flatten", hidden=[4]), 2),
        (rg.Head(pool="avgmax"), 2),
        (rg.Head(output="binary"), 1),
    ],
)
def test_heads(small: nn.Module, head: rg.Head, rows: int) -> None:
    model = rg.adapt(small, classes=["b", "d"], head=head, image_size=(64, SIDE))
    assert model(torch.zeros(2, 3, 64, SIDE)).shape == (2, rows)
    freeze(model, "head")
    before = state_of(model)
    model.train()
    model(torch.rand(2, 3, 64, SIDE)).square().mean().backward()
    assert all(
        parameter.grad is None for name, parameter in model.named_parameters() if not info_of(model).is_head(name)
    )
    assert not changed(before, model)


def test_rows_follow_names(small: nn.Module) -> None:
    turned = rg.adapt(small, classes=["c", "d", "a"])
    before, after = small.get_parameter("conv_preds.weight"), turned.get_parameter("conv_preds.weight")
    assert torch.equal(after[[0, 2]], before[[2, 0]])


def test_other_channels_keep_the_stem(small: nn.Module) -> None:
    grey = rg.adapt(small, in_channels=1)
    images = IMAGES[:, :1]
    with torch.no_grad():
        assert torch.allclose(grey.eval()(images), small.eval()(images.expand(-1, 3, -1, -1)), atol=1e-4)
    bands = rg.adapt(grey, in_channels=4, image_size=64)
    assert bands(torch.zeros(1, 4, 64, 64)).shape == (1, 3)


def test_constants_for_three_colours_are_told(keras: Any) -> None:
    model = build_model("keras:EfficientNetV2B0")
    with pytest.raises(SettingsError, match="constants for three colours"):
        rg.adapt(model, in_channels=4)


def test_without_a_top_and_cut(small: nn.Module) -> None:
    base = build_model("keras:MobileNet", alpha=0.25, include_top=False, pooling="avg", image_size=SIDE)
    assert base(IMAGES).shape == (4, 256)
    features = rg.tap(small, ["conv_pw_5_relu", "conv_pw_11_relu"])
    assert [tuple(output.shape) for output in features(IMAGES)] == [(4, 4, 4, 64), (4, 2, 2, 128)]  # channels last


@pytest.mark.slow
def test_it_trains_resumes_and_is_loaded_again(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin(keras, tmp_path)
    data = rg.open_data(photos(tmp_path / "photos", {"blue": 8, "green": 8, "red": 8}))
    recipe = {
        "model": {
            "name": "keras:MobileNet",
            "weights": str(tmp_path / "net.weights.h5"),
            "image_size": SIDE,
            "args": {"alpha": 0.25, "dropout": 0.2},
        },
        "data": {"source": str(tmp_path / "photos"), "batch_size": 8},
        "numerics": {"precision": "fp32"},
        "stages": [
            {"name": "head", "train": "head", "epochs": 1, "optimizer": "adam"},
            {"name": "top", "train": ["from:conv_dw_13", "head"], "epochs": 2, "lr": 1e-3, "bn": "train"},
        ],
        "save_steps": 1,
    }
    whole = rg.run_recipe(recipe, out=tmp_path / "whole", data=data, show=False)
    audit = whole.read(whole.audit)
    assert [stage["verdict"] for stage in audit["stages"]] == ["ok", "ok"]
    assert "conv_pw_13_bn.running_mean" in audit["stages"][1]["buffers_moved"]

    from regraft.training.loop import gradient_stage

    real = gradient_stage.seed_step

    def stop(seed: int, number: int, *rest: Any) -> None:
        if number == 4:
            raise StoppedError("Stopped by the test.", "", "", exit_code=130)
        real(seed, number, *rest)

    monkeypatch.setattr(gradient_stage, "seed_step", stop)
    with pytest.raises(StoppedError, match="Stopped by the test"):
        rg.run_recipe(recipe, out=tmp_path / "killed", data=data, show=False)
    monkeypatch.setattr(gradient_stage, "seed_step", real)
    rg.resume(tmp_path / "killed", show=False)
    first, second = rg.load_model(tmp_path / "whole"), rg.load_model(tmp_path / "killed")
    assert not changed(state_of(first), second)

    config = whole.read(whole.model / "config.json")
    assert config["architecture"] == "regraft/keras:MobileNet"
    assert config["regraft"]["timm_loadable"] is False
    from regraft.models.store.folder import load_probes

    probes = load_probes(tmp_path / "whole")
    with torch.no_grad():
        assert (first(probes["images"]) - probes["logits"]).abs().max() <= 1e-4
    assert info_of(first).class_names == ("blue", "green", "red")
    assert len(list(rg.predict(tmp_path / "whole", tmp_path / "photos" / "red"))) == 8


def test_names_are_known_without_keras() -> None:
    assert is_buildable("keras:ResNet50")
    assert "keras:VGG16" in list_models("keras:*")
    with pytest.raises(SettingsError, match="keras:ResNet50"):
        build_model("keras:resnet50")


def test_keras_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "keras", raising=False)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "keras" else real(name, *rest))
    with pytest.raises(SettingsError, match="Keras is not installed") as caught:
        build_model("keras:ResNet50")
    assert "pip install 'regraft[keras]'" in str(caught.value)


def test_another_backend(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(SettingsError, match="the backend 'jax' before") as caught:
        build_model("keras:ResNet50")
    assert "KERAS_BACKEND=torch" in str(caught.value)


def test_arguments_that_keras_refuses(keras: Any) -> None:
    with pytest.raises(SettingsError, match="MobileNet"):
        build_model("keras:MobileNet", no_such_argument=1)
