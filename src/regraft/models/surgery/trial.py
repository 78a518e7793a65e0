"""A network tried on blank images: whatever it raises becomes the sentence that helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.describe.trace import smallest_size, trace
from regraft.wording import quantity

__all__ = ["blank_images", "check_runs", "telling"]


def blank_images(model: nn.Module, preprocessing: Preprocessing) -> Tensor:
    """Return two images of the size and the channels that the preprocessing gives, where the network lies."""
    parameter = next(model.parameters())
    shape = (2, preprocessing.num_channels, *preprocessing.pixels.size)
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


@contextlib.contextmanager
def telling(model: nn.Module, architecture: str, preprocessing: Preprocessing) -> Iterator[None]:
    """Turn whatever a network raises on an image into the sentence that helps."""
    size = preprocessing.pixels.size
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "channels" in reason and "to have" in reason:
            raise SettingsError(
                f"{architecture!r} does not take images of {quantity(preprocessing.num_channels, 'channel')}: "
                f"{reason}.",
                "as many channels as its first layer takes",
                f"pass `in_channels={preprocessing.num_channels}` to `rg.adapt`",
            ) from error
        if _takes_in_features(model, preprocessing):
            raise SettingsError(
                f"The head of {architecture!r} flattens a feature map of one size, and images of {size[0]}x{size[1]} "
                f"pixels give another: {reason}.",
                "the image size that this head was built for, or a new head",
                "pass `head=rg.Head(pool='flatten')` for a new one of this size (its old rows are lost), "
                "`pool='avg'` for one of any size, or leave `image_size` out",
            ) from error
        smallest = smallest_size(model)
        raise SettingsError(
            f"{architecture!r} cannot take images of {size[0]}x{size[1]} pixels: {reason}.",
            "an image size that leaves at least one pixel at the end of the network"
            + (f"; the smallest is {smallest}x{smallest}." if smallest and smallest > min(size) else "."),
            "another `--image-size`; 224 fits nearly every network",
        ) from error


def _takes_in_features(model: nn.Module, preprocessing: Preprocessing) -> bool:
    """Return whether the network takes these images up to its last feature map."""
    try:
        trace(model, preprocessing.pixels.size, method="forward_features")
    except SettingsError:
        return False
    return True


def check_runs(model: nn.Module, preprocessing: Preprocessing, num_rows: int | None) -> None:
    """Run the network, in evaluation mode; its outputs have so many rows where a number is given.

    Raises:
        SettingsError: It does not take these images, or gives something else.
    """
    model.eval()
    info = info_of(model)
    shape: tuple[object, ...]
    expected: tuple[object, ...] = (num_rows,)
    if info.output == "segmentation":  # shapes alone: the maps of a large image take long to compute
        shape = trace(model, preprocessing.pixels.size)[""].shape or ()
        expected = (num_rows, *preprocessing.pixels.size)
    else:
        with telling(model, info.architecture, preprocessing), torch.no_grad():
            logits = model(blank_images(model, preprocessing))
        shape = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else (type(logits).__name__,)
    if num_rows is not None and shape != expected:
        raise SettingsError(
            f"The adapted network gives outputs of shape {shape}, its head has {quantity(num_rows, 'row')}.",
            f"one logit for each row of the head{' and each pixel' if len(expected) > 1 else ''}",
            "build the head into the module and pass it to train without adapt",
        )
