"""pytorch-grad-cam and captum compute our maps, given the layer that we find by ourselves."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.explanation.evidence import EvidenceMaps, class_score

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

NUMERICS = Numerics("cpu", "fp32", True, 1)
POOLED = {
    "resnet18": "layer4",
    "tf_efficientnet_lite0": "bn2",
    "densenet121": "features.norm5",
    "convnext_atto": "stages",
}
FLATTENED = {"alexnet": "pool5", "keras_vgg16": "features"}


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    own = name in FLATTENED
    model = rg.build_model(name, num_classes=6, seed=0) if own else timm.create_model(name, num_classes=6)
    side = {"alexnet": 227}.get(name, 96)
    return model.eval(), torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def ours(model: nn.Module, images: Tensor, places: Tensor) -> np.ndarray:
    _, (found,) = EvidenceMaps(model, NUMERICS)(images, lambda logits: [class_score(logits, "softmax", places)])
    return found


class _Score:
    """The class less the mean of all, as pytorch-grad-cam asks for it."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, logits: Tensor) -> Tensor:
        return logits[self.place] - logits.mean()


def scaled(maps: np.ndarray) -> np.ndarray:
    """Negative values dropped, and each map from 0 to 1, as pytorch-grad-cam gives them."""
    clipped = maps.clip(min=0)
    clipped = clipped - clipped.min((1, 2), keepdims=True)
    return clipped / clipped.max((1, 2), keepdims=True)


@pytest.mark.parametrize("name", [*POOLED, *FLATTENED])
def test_captum(name: str) -> None:
    from captum.attr import LayerGradientXActivation

    model, images = network(name)
    layer = {**POOLED, **FLATTENED}[name]

    def score(batch: Tensor) -> Tensor:
        logits = model(batch)
        return logits - logits.mean(1, keepdim=True)

    explainer = LayerGradientXActivation(score, model.get_submodule(layer))
    places = torch.tensor([1, 4])
    wanted = explainer.attribute(images, target=places).sum(1).detach().numpy()
    found = ours(model, images, places)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4 * abs(wanted).max(), rtol=1e-3)


@pytest.mark.parametrize("name", [*POOLED, *FLATTENED])
def test_pytorch_grad_cam(name: str) -> None:
    from pytorch_grad_cam import GradCAM, HiResCAM

    model, images = network(name)
    layer = model.get_submodule({**POOLED, **FLATTENED}[name])
    found = scaled(ours(model, images, torch.tensor([1, 4])))
    targets = [_Score(1), _Score(4)]
    kinds = [HiResCAM] if name in FLATTENED else [HiResCAM, GradCAM]  # behind pooling they are the same
    for kind in kinds:
        with kind(model=model, target_layers=[layer]) as explainer:
            explainer.get_target_width_height = lambda _: None  # the map as it is, not drawn larger
            wanted = explainer(input_tensor=images, targets=targets)
        assert wanted.shape == found.shape
        np.testing.assert_allclose(found, wanted, atol=2e-3)
