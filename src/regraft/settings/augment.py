"""How training images vary at random; `regraft.data.augment` does it."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field, field_validator

from regraft.settings.strict import NotNegative, Pixels, Share, settings

__all__ = ["Augment", "Fill", "Flip"]

Flip = Literal["horizontal", "vertical", "both"]
Fill = Literal["nearest", "reflect", "constant"]


@settings
class Augment:
    """How much each training image may change, in degrees, fractions of the side and factors; the default: nothing.

    Geometry follows Keras: shear also shortens the distance of the rows by its cosine, and a zoom below 1 enlarges.
    """

    rotation: NotNegative = Field(default=0.0, le=360, description="maximum rotation in degrees, either way")
    shift: Share | tuple[Share, Share] = Field(
        default=0.0,
        description="maximum shift along both sides, as a fraction of the side; or [vertical, horizontal]",
    )
    shear: NotNegative = Field(default=0.0, le=89, description="maximum shear angle in degrees")
    zoom: NotNegative = Field(
        default=0.0, le=0.99, description="z: an independent factor in [1 - z, 1 + z] for each side"
    )
    flip: Flip | None = Field(default=None, description="flips with probability 0.5, along one axis or both")
    crop: tuple[Share, Share] | None = Field(
        default=None, description="minimum and maximum fraction of the area to crop and enlarge, as [0.35, 1.0]"
    )
    window: Pixels | tuple[Pixels, Pixels] | None = Field(
        default=None,
        description="side, or [height, width], of a part that is cut out at random and trained on at full resolution",
    )
    brightness: NotNegative = Field(default=0.0, le=10, description="b: a factor in [1 - b, 1 + b]")
    contrast: NotNegative = Field(
        default=0.0, le=10, description="c: a blend with the image's mean grey in [1 - c, 1 + c]"
    )
    saturation: NotNegative = Field(
        default=0.0, le=10, description="s: a blend with each pixel's grey in [1 - s, 1 + s]"
    )
    hue: NotNegative = Field(default=0.0, le=0.5, description="maximum hue shift, as a fraction of the colour circle")
    erase: Share = Field(
        default=0.0, description="probability that a rectangle of 2 to 33 % of the area is filled with a constant"
    )
    fill: Fill = Field(
        default="nearest", description="what lies beyond the border: the nearest pixel, the mirror image, or a constant"
    )

    @field_validator("crop")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError("must be two rising fractions of the area above 0, such as [0.35, 1.0]")
        return value

    @property
    def is_identity(self) -> bool:
        """Whether every image stays as it is, so that its features may be computed once."""
        others = (field.name for field in fields(self) if field.name not in ("fill", "shift"))
        return not any(self.shifts) and all(getattr(self, name) in (0, None) for name in others)

    @property
    def shifts(self) -> tuple[float, float]:
        """The maximum vertical and horizontal shift, as fractions of the sides."""
        return self.shift if isinstance(self.shift, tuple) else (self.shift, self.shift)

    @property
    def window_size(self) -> tuple[int, int] | None:
        """Height and width of what is cut out of each image; None: it stays whole."""
        return (self.window, self.window) if isinstance(self.window, int) else self.window

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated (a flip alone only moves them)."""
        return any((self.rotation, *self.shifts, self.shear, self.zoom, self.crop, self.window))
