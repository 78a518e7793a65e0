"""Which known network a weights file most likely belongs to, by the shapes of its tensors."""

from __future__ import annotations

from collections import Counter

import timm
import torch

from regraft.weights.file import WeightFile

__all__ = ["likely_architectures"]

_CANDIDATES = (
    "vgg11 vgg13 vgg16 vgg19 vgg16_bn vgg19_bn resnet18 resnet34 resnet50 resnet101 resnet152 resnetv2_50 densenet121 "
    "densenet169 densenet201 inception_v3 legacy_xception mobilenetv1_100 mobilenetv2_100 mobilenetv3_large_100 "
    "mobilenetv3_small_100 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 "
    "tf_efficientnet_lite0 tf_efficientnetv2_s convnext_tiny convnext_small regnety_016 wide_resnet50_2 "
    "resnext50_32x4d nasnetalarge"
).split()
_Shape = tuple[int, ...]


def likely_architectures(weights: WeightFile, *, num_best: int = 3) -> list[tuple[str, float]]:
    """Names with a score from 0 to 1, best first: the share of kernels that file and network have in common.

    The score is the overlap (Jaccard index) of the two multisets of kernel shapes, whatever the order of their axes, so
    that it is the same for every framework. It says nothing of strides, padding or epsilon.
    """
    kernels = Counter(_canonical(tensor.shape) for tensor in weights if len(tensor.shape) >= 2)
    scores = [(name, _overlap(kernels, _kernels(name))) for name in _CANDIDATES]
    ranked = sorted((item for item in scores if item[1] > 0.05), key=lambda item: -item[1])
    return ranked[:num_best]


def _kernels(name: str) -> Counter[_Shape]:
    with torch.device("meta"):
        model = timm.create_model(name)
    return Counter(_canonical(tuple(tensor.shape)) for tensor in model.state_dict().values() if tensor.ndim >= 2)


def _canonical(shape: _Shape) -> _Shape:
    return tuple(sorted(side for side in shape if side > 1))


def _overlap(left: Counter[_Shape], right: Counter[_Shape]) -> float:
    union = sum((left | right).values())
    return sum((left & right).values()) / union if union else 0.0
