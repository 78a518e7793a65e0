"""Tensors as safetensors wants them: on the CPU, contiguous, none sharing memory with another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["unshared"]


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU; of two that share memory (tied weights) the second becomes a copy."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        found[name] = tensor.clone() if tensor.data_ptr() in seen and tensor.numel() else tensor
        seen.add(tensor.data_ptr())
    return found
