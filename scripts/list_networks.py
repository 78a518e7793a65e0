"""Write the kernel shapes of known networks, by which `regraft inspect FILE` tells what a file is.

uv run python scripts/list_networks.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from regraft.models.zoo.build import build_model
from regraft.weights.likely import NETWORKS, kernel_sides

_NAMES = """
alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn resnet18 resnet34 resnet50 resnet101
resnet152 wide_resnet50_2 resnext50_32x4d seresnet50 resnetv2_50 resnetv2_101 densenet121 densenet169 densenet201
inception_v3 inception_v4 inception_resnet_v2 legacy_xception nasnetalarge mobilenetv1_100 mobilenetv2_100
mobilenetv2_140 mobilenetv3_large_100 mobilenetv3_small_100 efficientnet_b0 efficientnet_b1 efficientnet_b2
efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 tf_efficientnet_lite0
tf_efficientnetv2_b0 tf_efficientnetv2_s tf_efficientnetv2_m convnext_tiny convnext_small convnext_base
regnetx_016 regnety_016 mnasnet_100 ghostnet_100 dpn68 dla34 hrnet_w18 vit_base_patch16_224
"""
NAMES = _NAMES.split()


def lines(names: list[str] = NAMES) -> Iterator[str]:
    """One line for each network: name, number of normalisations, shapes."""
    for name in names:
        with torch.device("meta"):
            state = build_model(name).state_dict()
        norms = sum(tensor_name.endswith("running_var") for tensor_name in state)
        shapes = kernel_sides(tuple(tensor.shape) for tensor in state.values())
        words = ["x".join(map(str, sides)) + (f"*{n}" if n > 1 else "") for sides, n in sorted(shapes.items()) if sides]
        yield " ".join([name, str(norms), *words])


def main() -> None:
    path = Path(__file__).parents[1] / "src" / "regraft" / "weights" / NETWORKS
    path.write_text("\n".join(lines()) + "\n", encoding="ascii")
    print(f"{path}: {len(NAMES)} networks")


if __name__ == "__main__":
    main()
