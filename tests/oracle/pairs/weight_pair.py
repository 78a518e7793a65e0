"""What a pair of networks is: one of another library and one that regraft builds, narrow and with random weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["Network", "Output", "Pair", "features", "randomize", "timm_", "write_state"]

Network = Callable[[], nn.Module]
Output = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pair:
    """One network in two libraries.

    Attributes:
        library: The library of the file.
        name: The network there.
        target: The name of the network here.
        source: Builds the library's network.
        write: Writes the file of a network into a folder, and returns its path.
        build: Builds the network here.
        refused: What a refusal must say; empty where the numbers must agree.
        output: What is compared of the library's network.
        own_output: What is compared of the one here.
        size: The side of the image.
        tolerance: The largest difference, of the largest value.
        require: What must be filled.
        adjust: Whether epsilons that differ are set to the file's.
        options: How the file is matched, beside the rules.
    """

    library: str
    name: str
    target: str
    source: Network
    write: Callable[[nn.Module, Path], Path]
    build: Network
    refused: str = ""
    output: Output = lambda model, x: _logits(model(x))
    own_output: Output = lambda model, x: _logits(model(x))
    size: int = 64
    tolerance: float = 1e-5
    require: str = "all"
    adjust: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.library}: {self.name} -> {self.target}"

    @property
    def seed(self) -> int:
        return zlib.crc32(self.id.encode())


def _logits(found: Any) -> torch.Tensor:
    for name in ("logits", "image_embeds", "last_hidden_state"):
        if getattr(found, name, None) is not None:
            return getattr(found, name)  # type: ignore[no-any-return]
    return found if isinstance(found, torch.Tensor) else found["out"]


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Give all tensors values that tell them apart: kernels that keep the scale, norms and tokens around theirs."""
    draw = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=draw)

    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            leaf = name.rpartition(".")[2]
            if not tensor.is_floating_point() or leaf in ("relative_coords_table", "inv_freq", "periods"):
                continue
            if leaf in ("running_var", "moving_variance"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
            elif (leaf in ("weight", "gamma", "lambda1") and tensor.ndim == 1) or "scale" in leaf or "lambda" in leaf:
                tensor.copy_(1 + 0.2 * normal(tensor))
            elif tensor.ndim <= 1 or leaf.endswith(("bias", "mean")):
                tensor.copy_(0.1 * normal(tensor))
            elif leaf == "kernel":  # of Keras, whose last axis is that of outputs
                tensor.copy_(normal(tensor) * (tensor.shape[-1] / tensor.numel()) ** 0.5)
            elif leaf in ("weight", "in_proj_weight", "proj") and "position" not in name:
                tensor.copy_(normal(tensor) / max(tensor[0].numel(), 1) ** 0.5)
            else:
                tensor.copy_(0.5 * normal(tensor))
    return model.eval()


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return all tensors of a network by name; Keras calls them by paths."""
    if hasattr(model, "save_weights"):
        return {weight.path.replace("/", "."): weight.value for weight in model.weights}
    return dict(model.state_dict())


def timm_(name: str, **arguments: Any) -> tuple[str, Network]:
    """Return the name of a network of timm, and what builds it."""
    import timm

    return name, lambda: timm.create_model(name, **arguments)


def features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the last feature map of a network of timm."""
    return model.forward_features(x)  # type: ignore[operator,no-any-return]


def write_state(model: nn.Module, folder: Path) -> Path:
    """Write a state dict."""
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"
