"""The settings of the data, as a recipe has them: which photos, how they are divided, how they become pixels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from regraft.recipe_stages import Strict

__all__ = ["DataSettings", "PreprocessSettings"]

_CHOICES = ("labels", "names", "masks", "class_table", "ignore", "fractions", "fold")
_LARGEST_SHARE = 2.0  # a mean or a deviation above this is no share of full brightness


def off_word(value: Any) -> Any:
    """YAML reads the plain word off as false."""
    return "off" if value is False else value


class PreprocessSettings(Strict):
    """Numbers of one's own: subtract `mean`, divide by `std`, in the order of `channels`."""

    mean: float | list[float] = Field(0.0, description="subtracted; one number, or one for each channel")
    std: float | list[float] = Field(1.0, description="divided by; one number, or one for each channel")
    channels: str | list[str] | None = Field(None, description="RGB, BGR, L, or names; null: the weights' own order")
    scale: Literal[1, 255] = Field(1, description="what full brightness is to mean and std")
    interpolation: Literal["bicubic", "bilinear", "lanczos", "nearest"] | None = Field(
        None, description="the filter of resizing; null: the weights' own"
    )
    background: tuple[int, int, int] | None = Field(None, description="red, green, blue under what is transparent")
    pixels: dict[str, Any] | None = Field(None, description="the whole pixel program, as runs write it")

    @model_validator(mode="after")
    def _on_one_scale(self) -> PreprocessSettings:
        largest = max(abs(number) for number in [*_numbers(self.mean), *_numbers(self.std), 0.0])
        if self.scale == 1 and largest > _LARGEST_SHARE:
            raise ValueError(f"numbers such as {largest:g} are on the scale 0 to 255; add `scale: 255`")
        return self


class DataSettings(Strict):
    """Which photos, how they are divided, and how they become pixels."""

    source: str | None = Field(
        None, description="a folder of classes, a list, a table, a folder with lists, or one of images and masks"
    )
    labels: str | None = Field(None, description="the list of the labels of the pictures in the folder `source`")
    names: str | None = Field(None, description="the names of labels that are numbers, one a line")
    masks: str | None = Field(
        None, description="where the masks of `source` lie: a folder, a JSON file of COCO, or a pattern as '*_mask.png'"
    )
    class_table: str | list[str | dict[str, Any]] | None = Field(
        None, description="the classes in masks: a file, or a list of names or of {name, value, colour, ignore}"
    )
    ignore: int | str | list[int | str | list[int]] | None = Field(
        None, description="what counts for nothing in masks: a value, a class name, a colour, or a list of such"
    )
    fractions: tuple[float, float, float] = Field((0.70, 0.15, 0.15), description="shares of train, val, test")
    fold: tuple[int, int] | None = Field(None, description="[k, K]: fold k, from 0, of K is for validation")
    batch_size: int = Field(32, ge=1, description="images at a time, of stages that do not say")
    preprocess: Annotated[
        Annotated[Literal["model", "caffe", "tf", "torch", "raw"], Tag("literal[word]")]
        | Annotated[PreprocessSettings, Tag("dict[numbers]")],
        Discriminator(lambda value: "literal[word]" if isinstance(value, str) else "dict[numbers]"),
    ] = Field(
        "model", description="colours: model (what the weights were trained with), a family of weights, or numbers"
    )
    resize: Literal["squash", "crop", "pad"] = Field(
        "squash", description="fit both sides, or cut the middle out, or fit inside and fill up"
    )
    cache: Annotated[Literal["auto", "off", "ram", "disk"], BeforeValidator(off_word)] = Field(
        "auto", description="where decoded pixels are kept; the result is the same"
    )

    @field_validator("fractions")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or value[0] == 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("must be three shares that add up to 1, the first above 0")
        return value

    @field_validator("fold")
    @classmethod
    def _fold(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1] >= 2:
            raise ValueError("must be [k, K] with k from 0 to K - 1, and K at least 2")
        return value

    def choices(self) -> dict[str, Any]:
        """What `open_data` takes beside the source and the seed."""
        return {name: getattr(self, name) for name in _CHOICES}


def _numbers(values: float | list[float]) -> list[float]:
    return values if isinstance(values, list) else [values]
