"""`keras:NAME` over the families of keras.applications: Keras's own counts and `predict`, and freezing that holds.

Keras builds each network with random weights and statistics fitted to a batch, and saves it; ours is filled from the
file.
"""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.oracle.test_keras_applications import randomise
from torch import Tensor, nn

from regraft.models.describe.info import info_of
from regraft.models.layers.layers import list_layers
from regraft.models.surgery.surgery import adapt
from regraft.models.zoo.build import build_model
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import freeze
from regraft.plan.freezing.select import select

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # Keras warns at nearly every call

# The smaller members of each family, at small sizes: what differs within a family is numbers of blocks and channels.
NETWORKS: dict[str, dict[str, Any]] = {
    "ConvNeXtTiny": {"size": 64},
    "DenseNet121": {"size": 64},
    "DenseNet169": {"size": 64},
    "EfficientNetB0": {"size": 64},
    "EfficientNetB1": {"size": 64},
    "EfficientNetV2B0": {"size": 64},
    "EfficientNetV2B1": {"size": 64},
    "EfficientNetV2S": {"size": 32},
    "InceptionResNetV2": {"size": 75},
    "InceptionV3": {"size": 75},
    "MobileNet": {"size": 64, "alpha": 0.25},
    "MobileNetV2": {"size": 64, "alpha": 0.35},
    "MobileNetV3Large": {"size": 64, "alpha": 0.75},
    "MobileNetV3Small": {"size": 64},
    "ResNet50": {"size": 64},
    "ResNet50V2": {"size": 64},
    "ResNet101": {"size": 32},
    "VGG16": {"size": 32, "include_top": False},  # its top is made for images of 224 pixels alone
    "VGG19": {"size": 32, "include_top": False},
    "Xception": {"size": 75},
}
NUM_CLASSES = 3
TOLERANCE = 1e-4
BY_BYTES = ("ConvNeXt", "EfficientNet", "MobileNetV3")  # they normalise their images themselves


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras", reason="Keras is not installed: `uv sync --group oracle`")
    if module.backend.backend() != "torch":
        pytest.skip(f"keras was imported with the backend {module.backend.backend()} before")
    module.backend.clear_session()
    yield module
    module.backend.clear_session()
    gc.collect()


def images_for(name: str, size: int) -> np.ndarray:
    """Four images (4, H, W, 3), on the scale that the network takes."""
    images = np.random.default_rng(0).random((4, size, size, 3), dtype=np.float32)
    return images * 255 if name.startswith(BY_BYTES) else images * 2 - 1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_keras_s_and_freezes(name: str, keras: Any, tmp_path: Path) -> None:
    arguments = dict(NETWORKS[name])
    size = arguments.pop("size")
    images = images_for(name, size)
    top = {} if "include_top" in arguments else {"classes": NUM_CLASSES, "classifier_activation": None}
    theirs = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **top, **arguments)
    randomise(theirs, images)
    theirs.save_weights(tmp_path / "net.weights.h5")
    ours = build_model(f"keras:{name}", weights=tmp_path / "net.weights.h5", image_size=size, **arguments)
    layers = list_layers(ours)
    assert sum(layer.num_parameters for layer in layers) == theirs.count_params()
    trainable = sum(int(np.prod(weight.shape)) for weight in theirs.trainable_weights)
    assert sum(layer.num_trainable for layer in layers) == trainable
    expected = theirs.predict(images, verbose=0)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        found = ours.eval()(batch)
    found = found.permute(0, 2, 3, 1) if found.ndim == 4 else found
    assert tuple(found.shape) == expected.shape
    error = float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())
    print(f"\n{name:18} {theirs.count_params():>11,} parameters, output {error:.1e}", end="")
    assert error <= TOLERANCE
    del theirs
    freezes(adapt(ours, classes=list("abc")) if arguments.get("include_top") is False else ours, batch, name)


def freezes(model: nn.Module, images: Tensor, name: str) -> None:
    """A random plan, three steps with momentum and weight decay: what moved is what trains, to the byte."""
    chance = random.Random(name)
    backbone = sorted(select(model, "backbone"))
    terms = chance.choice(
        [
            ["stage:-1"],
            [f"last:{chance.randint(2, 30)}"],
            [f"from:{chance.choice(backbone)}"],
            chance.sample(backbone, 5),
        ]
    )
    plan = freeze(model, [*terms, "head"], bn=chance.choice([None, "train", "affine-only"]))
    model = copy.deepcopy(model)
    keys = list(model.state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    snapshot = Snapshot.take(model, plan)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-2)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    audit = snapshot.audit(model, optimizer)
    assert audit.verdict == "ok", (terms, audit.violations)
    after = model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert set(plan.trainable) <= moved, (terms, sorted(set(plan.trainable) - moved))
    assert moved <= {*plan.trainable, *plan.moving}, terms
    assert list(after) == keys
    assert info_of(model).architecture.startswith("keras:")
