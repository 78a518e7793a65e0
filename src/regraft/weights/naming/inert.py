"""Tensors of a file without which its network computes the same: counters, indices, what pretraining alone needs."""

from __future__ import annotations

import re

from regraft.weights.file import SourceTensor

__all__ = ["is_float", "is_inert", "is_inert_name"]

_INERT = re.compile(
    r"num_batches_tracked|relative_position_index|relative_coords_table|attn_mask|position_ids|mask_token|total_ops|"
    r"total_params|(inv_)?freqs?(_cis)?|periods"
)


def is_inert(tensor: SourceTensor) -> bool:
    """Return whether a network computes the same without this tensor."""
    return not is_float(tensor) or is_inert_name(tensor.name)


def is_inert_name(name: str) -> bool:
    """Return whether a name's last part is that of a buffer which is computed or counted."""
    return _INERT.fullmatch(re.split(r"[./]", name)[-1]) is not None


def is_float(tensor: SourceTensor) -> bool:
    """Return whether it holds real or complex numbers."""
    return tensor.dtype.startswith(("float", "bfloat", "complex"))
