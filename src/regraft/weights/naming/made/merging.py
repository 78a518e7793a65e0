"""Swin's patch merging as OpenMMLab has it: four pixels side by side within each channel, where others have the four
channels' blocks one behind the other, and the pixels in rows where others have them in columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from regraft.weights.axes import Reshape, Step, Take, Transpose, convert
from regraft.weights.file import SourceTensor
from regraft.weights.naming.layers import Layer

__all__ = ["with_merging_in_blocks"]

_COLUMNS = (0, 2, 1, 3)  # the pixels of a window of 2x2 in rows, by columns


def with_merging_in_blocks(sources: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the file's layers, with the channels of OpenMMLab's patch merging in the order of all others."""
    if not any(".attn.w_msa." in name for name in sources):
        return dict(sources)
    return {
        name: replace(layer, tensors={role: _in_blocks(tensor) for role, tensor in layer.tensors.items()})
        if name.endswith((".downsample.reduction", ".downsample.norm")) and layer.shape[-1] % 4 == 0
        else layer
        for name, layer in sources.items()
    }


def _in_blocks(tensor: SourceTensor) -> SourceTensor:
    *rows, width = tensor.shape
    apart = (*rows, width // 4, 4)
    turned = (*range(len(rows)), len(rows) + 1, len(rows))
    steps: tuple[Step, ...] = (Reshape(apart), Transpose(turned), Take(_COLUMNS, len(rows)), Reshape(tensor.shape))
    return replace(tensor, load=lambda: convert([tensor.load()], steps), parts=(tensor,), made=steps)
