"""Views of an image at prediction, whose probabilities are averaged (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from regraft.errors import SettingsError

__all__ = ["MIRRORING", "PLACES", "Views", "require_views", "views_of"]

Views = Literal["flip", "crops", "multi"]
# Where the views of each kind are among those of `multi`; from few to many.
PLACES: Mapping[Views, tuple[int, ...]] = {
    "flip": (0, 11),
    "crops": (0, 1, 3, 5, 7, 9),
    "multi": tuple(range(12)),
}
MIRRORING: frozenset[Views] = frozenset({"flip", "multi"})
_KEPT = 7 / 8  # of each side in a crop: 224 of 256 pixels, as in the ten crops of AlexNet (Krizhevsky et al. 2012)


def require_views(views: str | None) -> None:
    """Raise SettingsError where there are no views of this name."""
    if views is not None and views not in PLACES:
        raise SettingsError(
            f"There is no test-time augmentation {views!r} for classes.",
            f"{', '.join(PLACES)}, or auto for a run",
            "leave it out, or set one of them",
        )


def views_of(images_NCHW: Tensor, views: Views | None) -> Iterator[Tensor]:
    """Yield the images (N, C, H, W) themselves, then their other views, all of the same size.

    `flip`: the mirror image. `crops`: the four corners and the centre, 7/8 of each side, enlarged by bilinear
    interpolation. `multi`: the image and these crops, each with its mirror image.
    """
    yield images_NCHW
    if views in ("crops", "multi"):
        for crop in _crops(images_NCHW):
            yield crop
            if views == "multi":
                yield crop.flip(-1)
    if views in MIRRORING:
        yield images_NCHW.flip(-1)


def _crops(images_NCHW: Tensor) -> Iterator[Tensor]:
    height, width = images_NCHW.shape[-2:]
    kept = max(1, round(height * _KEPT)), max(1, round(width * _KEPT))
    down, right = height - kept[0], width - kept[1]
    for top, left in ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)):
        crop = images_NCHW[..., top : top + kept[0], left : left + kept[1]].float()
        yield F.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)
