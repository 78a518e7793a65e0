"""Logits of one image at another size, some rows at a time: maps of all classes are never held at a large size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resized_rows"]


def resized_rows(maps: Tensor, size: tuple[int, int], *, rows: int = 256) -> Iterator[tuple[int, Tensor]]:
    """Yield what `F.interpolate(maps, size, mode="bilinear", align_corners=False)` gives, from the top down.

    Args:
        maps: (C, h, w), fp32.
        size: Height and width of the result.
        rows: How many rows are made at a time.

    Yields:
        The number of the first row, and (C, at most `rows`, width).
    """
    height, width = size
    for top in range(0, height, rows):
        places = torch.arange(top, min(top + rows, height), dtype=torch.float32, device=maps.device)
        # The same arithmetic as torch's: pixels are areas, their centres are mapped.
        source = ((places + 0.5) * (maps.shape[1] / height) - 0.5).clamp(min=0)
        low = source.floor().long().clamp(max=maps.shape[1] - 1)
        high = (low + 1).clamp(max=maps.shape[1] - 1)
        share = (source - low)[:, None]
        part = maps[:, low] * (1 - share) + maps[:, high] * share
        yield top, F.interpolate(part[None], (len(places), width), mode="bilinear", align_corners=False)[0]
