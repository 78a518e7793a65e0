"""What is counted of each image of a split with masks: all metrics follow from it, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from regraft import commit
from regraft.evaluation.metrics.pixels import boundary_f1, pixel_metrics
from regraft.evaluation.trust.intervals import mask_intervals
from regraft.run.stored import require_plain

__all__ = ["PixelCounts", "keep_pixel_counts", "mask_metrics", "pixel_counts", "with_intervals"]

Counts = npt.NDArray[np.int64]
_LARGEST = 1 << 30  # bytes


@dataclass
class PixelCounts:
    """Counts of each image, in order.

    Attributes:
        areas: Hits, pixels of the class, and pixels called so, (3, C).
        edges: Counts of boundary pixels, (2, 2, C), as `BoundaryCounts` has them.
        nats: The sum of the negative log-likelihoods of its pixels.
    """

    areas: list[Counts] = field(default_factory=list)
    edges: list[Counts] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)

    def append(self, confusion: Counts, edges: Counts, nats: float) -> None:
        """Take in one image.

        Args:
            confusion: Its confusion matrix (C, C).
            edges: Its counts of boundary pixels (2, 2, C).
            nats: What its pixels cost together.
        """
        self.areas.append(np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)]))
        self.edges.append(edges)
        self.nats.append(nats)

    @classmethod
    def joined(cls, parts: Iterable[PixelCounts]) -> PixelCounts:
        """Return the counts of all images of several splits."""
        whole = cls()
        for part in parts:
            whole.areas += part.areas
            whole.edges += part.edges
            whole.nats += part.nats
        return whole


def mask_metrics(confusion: Counts, counts: PixelCounts, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics over all images, as plain data.

    Args:
        confusion: The confusion matrix of all pixels (C, C).
        counts: Of each image.
        class_names: The C names.
    """
    found, num_pixels = pixel_metrics(confusion, class_names), int(confusion.sum())
    near = [None if math.isnan(value) else value for value in boundary_f1(np.sum(counts.edges, axis=0)).tolist()]
    defined = [value for value in near if value is not None]
    return {
        "num_images": len(counts.nats),
        "num_pixels": num_pixels,
        "loss": math.fsum(counts.nats) / num_pixels if num_pixels else None,
        **{key: found[key] for key in ("miou", "pixel_accuracy", "class_accuracy")},
        "boundary_f1": sum(defined) / len(defined) if defined else None,
        "per_class": [{**row, "boundary_f1": value} for row, value in zip(found["per_class"], near, strict=True)],
        "confusion": confusion.tolist(),
        "class_names": list(class_names),
    }


def with_intervals(measures: dict[str, Any], counts: PixelCounts) -> dict[str, Any]:
    """Return metrics of masks with their intervals, over the images."""
    hits, support, named = np.stack(counts.areas, 1).astype(np.float64)
    edges = np.stack(counts.edges).astype(np.float64)
    return mask_intervals(measures, hits, support, named, np.array(counts.nats), edges)


def keep_pixel_counts(path: Path, counts: PixelCounts) -> None:
    """Write the counts to a file. Raises StorageError."""
    kept = {"areas": np.stack(counts.areas), "edges": np.stack(counts.edges), "nats": np.array(counts.nats)}
    commit.write_bytes(path, save(kept))


def pixel_counts(path: Path) -> PixelCounts | None:
    """Return the counts that a run keeps; None where it keeps none, as runs of older versions.

    Raises:
        StorageError: The file is a link.
        ValueError: It is damaged.
    """
    require_plain(path)
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("is too large to be one that regraft wrote")
        kept = load(path.read_bytes())
        areas, edges, nats = (list(kept[name]) for name in ("areas", "edges", "nats"))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return PixelCounts(areas, edges, [float(value) for value in nats])
