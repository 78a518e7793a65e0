"""The preprocessing of a recipe: what its weights were trained with, as the recipe changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import nn

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing, Style
from regraft.models.channels import choose_mix, mixed_preprocessing
from regraft.models.surgery.surgery import default_preprocessing
from regraft.recipe.recipe import Recipe
from regraft.settings.data import PreprocessSettings

__all__ = ["preprocessing_for"]


def preprocessing_for(recipe: Recipe, model: nn.Module) -> Preprocessing:
    """Return the program from an image file to the input of the recipe's network, before surgery changes its
    channels.
    """
    chosen = recipe.data.preprocess
    stored = not isinstance(chosen, str) and chosen.pixels is not None
    preprocessing = _chosen_preprocessing(chosen, default_preprocessing(model))
    in_channels, bands = recipe.model.in_channels, recipe.model.bands
    if bands is not None or in_channels not in (None, preprocessing.num_channels):
        mix = choose_mix(preprocessing.channels, in_channels=in_channels, bands=bands)
        preprocessing = mixed_preprocessing(preprocessing, mix)
    pixels = preprocessing.pixels
    if not stored or "resize" in recipe.data.model_fields_set:
        pixels = replace(pixels, resize=recipe.data.resize)
    if (size := recipe.model.image_size) is not None:
        pixels = replace(pixels, size=(size, size) if isinstance(size, int) else size)
    return replace(preprocessing, pixels=pixels)


def _chosen_preprocessing(chosen: Style | Literal["model"] | PreprocessSettings, own: Preprocessing) -> Preprocessing:
    """Return the recipe's normalization: the network's own, that of a family of weights, or custom numbers."""
    if isinstance(chosen, str):
        return own if chosen == "model" else Preprocessing.styled(chosen, own.pixels)
    pixels = own.pixels if chosen.pixels is None else PixelProgram.from_dict(chosen.pixels)
    for name in ("interpolation", "background"):
        if getattr(chosen, name) is not None:
            pixels = replace(pixels, **{name: getattr(chosen, name)})
    return Preprocessing.from_numbers(
        pixels, mean=chosen.mean, std=chosen.std, channels=chosen.channels or own.channels, scale=chosen.scale
    )
