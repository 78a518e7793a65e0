"""The complete way from a file to a network's input: pixels, then normalisation. Stored in every model folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from regraft.data.decode.decode import Interpolation, PixelProgram, Resize
from regraft.errors import SettingsError
from regraft.wording import quantity

__all__ = ["STYLES", "Channels", "Preprocessing", "Style"]

Style = Literal["caffe", "tf", "torch", "raw"]
Channels = str | tuple[str, ...]  # RGB, BGR, L (grey), or the names of the bands
_COUNTS = {"RGB": 3, "BGR": 3, "L": 1}
_BYTE = 1 / 255
# The modes of `keras.applications.imagenet_utils.preprocess_input`, and bytes as they are, on the scale 0 to 1.
STYLES: dict[Style, dict[str, Any]] = {
    "caffe": {
        "mean": (103.939 * _BYTE, 116.779 * _BYTE, 123.68 * _BYTE),
        "std": (_BYTE, _BYTE, _BYTE),
        "channels": "BGR",
    },
    "tf": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "torch": {},
    "raw": {"mean": (0.0, 0.0, 0.0), "std": (_BYTE, _BYTE, _BYTE)},
}


@dataclass(frozen=True)
class Preprocessing:
    """What turns a file into a network's input: decode to `pixels`, divide by 255, order the channels, normalise.

    Args:
        pixels: The program from file to uint8 pixels; its `bands` are those of `channels`.
        mean: Subtracted, on the scale 0 to 1, in the order of `channels`.
        std: Divided by, on the scale 0 to 1, in the order of `channels`.
        channels: `RGB`; `BGR` for networks that came from Caffe; `L` for grey; else the names of all bands.
    """

    pixels: PixelProgram
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet, as timm's IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        bands = self.channels if isinstance(self.channels, tuple) else ()
        mistakes = _mistakes(self)
        if mistakes:
            raise SettingsError(
                "The preprocessing cannot be carried out.",
                "mean and std are finite numbers on the scale 0 to 1, one for each channel, and std is above zero",
                "",
                details=mistakes,
            )
        if self.pixels.bands != bands:  # the files are read for the network's channels, whatever they were before
            object.__setattr__(self, "pixels", replace(self.pixels, bands=bands))

    @property
    def num_channels(self) -> int:
        """How many channels the network's input has."""
        return _num_channels(self.channels)

    @classmethod
    def styled(cls, style: Style, pixels: PixelProgram) -> Preprocessing:
        """Return the preprocessing that a whole family of weights shares.

        Args:
            style: `caffe`, BGR bytes minus the mean colour of ImageNet; `tf`, from -1 to 1; `torch`, ImageNet's mean
                and deviation; `raw`, bytes as they are.
            pixels: The program from file to pixels.
        """
        return cls(pixels, **STYLES[style])

    @classmethod
    def from_numbers(
        cls,
        pixels: PixelProgram,
        *,
        mean: Sequence[float] | float,
        std: Sequence[float] | float,
        channels: Channels | list[str],
        scale: float = 1.0,
    ) -> Preprocessing:
        """Return the preprocessing with a custom mean, standard deviation, channel order and scale.

        Args:
            pixels: The program from file to pixels.
            mean: Subtracted; one number, or one for each channel.
            std: Divided by, likewise.
            channels: Their order.
            scale: What full brightness is to `mean` and `std`: 1, or 255.

        Raises:
            SettingsError: Numbers that do not fit the channels, or cannot be divided by.
        """
        channels = tuple(channels) if isinstance(channels, list) else channels
        count = _num_channels(channels)
        mean, std = (tuple(number / scale for number in _numbers(values, count)) for values in (mean, std))
        return cls(pixels, mean, std, channels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and text, for JSON; `from_dict` gives an equal value back, to the last bit."""
        return {
            "pixels": self.pixels.to_dict(),
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels if isinstance(self.channels, str) else list(self.channels),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Return the value that `to_dict` wrote.

        Raises:
            SettingsError: For unknown, missing or impossible fields.
        """
        expected = {"pixels", "mean", "std", "channels"}
        if set(fields) != expected or not isinstance(fields["pixels"], Mapping):
            raise SettingsError(
                f"Stored preprocessing has the fields {sorted(fields)}.",
                f"it has exactly the fields {sorted(expected)}",
                "use the version of regraft that wrote the model folder, or a newer one",
            )
        pixels = PixelProgram.from_dict(fields["pixels"])
        channels: Any = fields["channels"]
        channels = tuple(channels) if isinstance(channels, list) else channels
        mean, std = (_numbers(fields[name], _num_channels(channels)) for name in ("mean", "std"))
        return cls(pixels, mean, std, channels)

    @classmethod
    def from_timm_cfg(
        cls, cfg: Mapping[str, Any], *, size: tuple[int, int] | None = None, resize: Resize = "squash"
    ) -> Preprocessing:
        """Return the preprocessing that a timm `pretrained_cfg` describes.

        Args:
            cfg: A plain dict with, where they differ from ImageNet's, `mean`, `std`, `interpolation`,
                `input_size` (channels, height, width) and `crop_pct`.
            size: Height and width to use in place of the configured ones.
            resize: The resize policy; `crop_pct` counts only for `crop`.
        """
        height, width = size or tuple(cfg.get("input_size", (3, 224, 224)))[-2:]
        interpolation: Interpolation = cfg.get("interpolation", "bicubic")
        if interpolation not in get_args(Interpolation):  # timm's "random" means: any filter will do
            interpolation = "bicubic"
        crop_fraction = float(cfg.get("crop_pct") or 1.0) if resize == "crop" else 1.0
        pixels = PixelProgram((int(height), int(width)), resize, interpolation, crop_fraction=min(1.0, crop_fraction))
        given: dict[str, Any] = {name: _numbers(cfg[name], 3) for name in ("mean", "std") if cfg.get(name) is not None}
        return cls(pixels, **given)


def _num_channels(channels: Any) -> int:
    return len(channels) if isinstance(channels, tuple) else _COUNTS.get(str(channels), 3)


def _numbers(values: Sequence[float] | float, count: int) -> tuple[float, ...]:
    """Return one number for each channel, of which a single one stands for all; another count is refused later."""
    numbers = [values] if isinstance(values, (int, float)) else list(values)
    if not numbers or not all(isinstance(number, (int, float)) for number in numbers):
        raise SettingsError(f"{values!r} is not a colour.", "", "correct mean or std")
    return tuple(map(float, numbers * count if len(numbers) == 1 else numbers))


def _mistakes(preprocessing: Preprocessing) -> list[str]:
    if not _are_channels(preprocessing.channels):
        return [f"channels is {preprocessing.channels!r}; it is RGB, BGR, L, or a list of different band names."]
    count, mistakes = preprocessing.num_channels, []
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) != count or not all(math.isfinite(value) for value in values):
            mistakes.append(f"{name} is {values!r}; it is one finite number for each of {quantity(count, 'channel')}.")
        elif name == "std" and min(values) <= 0:
            mistakes.append(f"std is {values!r}; each number is above zero.")
    return mistakes


def _are_channels(channels: Any) -> bool:
    if not isinstance(channels, tuple):
        return isinstance(channels, str) and channels in _COUNTS
    return (
        bool(channels)
        and all(isinstance(name, str) and name for name in channels)
        and (len(set(channels)) == len(channels))
    )
