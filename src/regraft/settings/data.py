"""The settings of the data: which images, how they are split, how they become pixels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StrictInt, Tag, field_validator, model_validator

from regraft.settings.strict import Count, Number, Strict, Whole, off_word

__all__ = ["FRACTIONS", "DataSettings", "PreprocessSettings"]

FRACTIONS = (0.70, 0.15, 0.15)
_CHOICES = ("labels", "names", "masks", "class_table", "ignore", "fractions", "fold", "group")
_LARGEST_SHARE = 2.0  # a mean or a standard deviation above this is not a fraction of full brightness


class PreprocessSettings(Strict):
    """Custom normalization: subtract `mean`, divide by `std`, in the order of `channels`."""

    mean: Number | list[Number] = Field(0.0, description="subtracted; one number, or one for each channel")
    std: Number | list[Number] = Field(1.0, description="divided by; one number, or one for each channel")
    channels: str | list[str] | None = Field(None, description="RGB, BGR, L, or names; null: the weights' own order")
    scale: Literal[1, 255] = Field(1, description="the value of full brightness on the scale of mean and std")
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest"] | None = Field(
        None, description="the resampling filter; null: the weights' own"
    )
    background: tuple[Whole, Whole, Whole] | None = Field(
        None, description="red, green, blue under transparent pixels; null: the weights' own"
    )
    pixels: dict[str, Any] | None = Field(None, description="the whole pixel program, as runs write it")

    @model_validator(mode="after")
    def _on_one_scale(self) -> PreprocessSettings:
        largest = max(abs(number) for number in [*_numbers(self.mean), *_numbers(self.std), 0.0])
        if self.scale == 1 and largest > _LARGEST_SHARE:
            raise ValueError(f"numbers such as {largest:g} are on the scale 0 to 255; add `scale: 255`")
        return self


class DataSettings(Strict):
    """Which images, how they are split, and how they become pixels."""

    source: str | None = Field(
        None, description="a folder of classes, a list, a table, a folder with lists, or one of images and masks"
    )
    labels: str | None = Field(None, description="the list with the labels of the images in the folder `source`")
    names: str | None = Field(None, description="text file, one class name per line, for labels that are numbers")
    masks: str | None = Field(
        None, description="the masks of `source`: a folder, a COCO JSON file, or a pattern such as '*_mask.png'"
    )
    class_table: str | list[str | dict[str, Any]] | None = Field(
        None, description="the classes in masks: a file, or a list of names or of {name, value, colour, ignore}"
    )
    ignore: int | str | list[int | str | list[int]] | None = Field(
        None, description="what to ignore in masks: a value, a class name, a colour, or a list of those"
    )
    fractions: tuple[Number, Number, Number] = Field(FRACTIONS, description="fractions of train, val, test")
    fold: tuple[StrictInt, StrictInt] | None = Field(None, description="[k, K]: validate on fold k, from 0, of K")
    group: str | None = Field(
        None,
        description="what a split keeps together: a column of the table, `folder`, or a regular expression for paths",
    )
    batch_size: Count = Field(32, description="images per batch, in stages that do not set it")
    preprocess: Annotated[
        Annotated[Literal["model", "caffe", "tf", "torch", "raw"], Tag("literal[word]")]
        | Annotated[PreprocessSettings, Tag("dict[numbers]")],
        Discriminator(lambda value: "literal[word]" if isinstance(value, str) else "dict[numbers]"),
    ] = Field(
        "model",
        description="normalization: model (what the weights were trained with), a family of weights, or numbers",
    )
    resize: Literal["squash", "crop", "pad"] = Field(
        "squash", description="squash both sides, crop the center, or pad to fit"
    )
    cache: Annotated[Literal["auto", "off", "ram", "disk"], BeforeValidator(off_word)] = Field(
        "auto", description="where decoded pixels are kept; the result is the same"
    )

    @field_validator("fractions")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or value[0] == 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("must be three fractions that add up to 1, the first above 0")
        return value

    @field_validator("fold")
    @classmethod
    def _fold(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1] >= 2:
            raise ValueError("must be [k, K] with k from 0 to K - 1, and K at least 2")
        return value

    def choices(self) -> dict[str, Any]:
        """Return the arguments of `open_data`, beside the source and the seed."""
        return {name: getattr(self, name) for name in _CHOICES}


def _numbers(values: float | list[float]) -> list[float]:
    return values if isinstance(values, list) else [values]
