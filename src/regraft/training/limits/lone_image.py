"""One image alone in a batch: what batch norms that train cannot take the statistics of."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from regraft.data.cache.loader import batch_bounds
from regraft.errors import SettingsError
from regraft.models.describe.info import preprocessing_of
from regraft.plan.freezing.freeze import freeze
from regraft.plan.length import length_of
from regraft.settings.stage import Stage
from regraft.wording import quantity

__all__ = ["fewest_images", "require_company", "stands_alone"]

_REFUSAL = "more than 1 value per channel"  # torch's, of a norm that has one number to take the variance of


def fewest_images(model: nn.Module) -> int:
    """Return the least number of images in a batch of this model, in the mode that it is in.

    Two where a batch norm takes the statistics of each batch: of one image they are none (at maps of one pixel), or
    poor. Batches are divided accordingly (`batch_bounds`).
    """
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return 2 if any(module.training for module in norms) else 1


def require_company(model: nn.Module, stages: Iterable[Stage], num_images: int, batch_size: int) -> None:
    """Refuse stages with a batch of a single image that the network cannot train on.

    Args:
        model: The adapted model; it is not changed.
        stages: The stages, resolved.
        num_images: Training images.
        batch_size: Of stages that do not say.

    Raises:
        SettingsError: There is such a stage.
    """
    stages = list(stages)
    if not any(_has_one_alone(stage, num_images, batch_size, fewest=1) for stage in stages):
        return
    trial = copy.deepcopy(model).cpu()
    trained: set[str] = set()
    for stage in stages:
        if _cannot_take(trial, stage, num_images, batch_size, trained):
            raise _alone(stage, num_images, stage.batch_size or batch_size)


def stands_alone(
    model: nn.Module, stage: Stage, num_images: int, batch_size: int, *, trained: Iterable[str] = ()
) -> bool:
    """Return whether a batch of the stage holds a single image that the network cannot train on.

    Args:
        model: The adapted model; it is not changed.
        stage: The stage.
        num_images: Training images.
        batch_size: Where the stage does not say.
        trained: Layers that stages before it have trained.
    """
    if not _has_one_alone(stage, num_images, batch_size, fewest=1):
        return False
    return _cannot_take(copy.deepcopy(model).cpu(), stage, num_images, batch_size, set(trained))


def _cannot_take(trial: nn.Module, stage: Stage, num_images: int, batch_size: int, trained: set[str]) -> bool:
    """Return `stands_alone` for a copy of the model, frozen here as the stage asks; `trained` gains its layers."""
    trained |= set(freeze(trial, stage.selectors, bn=stage.bn, trained=trained).layers)
    fewest = fewest_images(trial.train())
    return _has_one_alone(stage, num_images, batch_size, fewest=fewest) and not _takes_one(trial, stage)


def _has_one_alone(stage: Stage, num_images: int, batch_size: int, *, fewest: int) -> bool:
    if stage.optimizer == "lbfgs":
        return False
    size = stage.batch_size or batch_size
    length = length_of(stage, num_images, size)
    num_steps = min(length.steps_per_epoch, length.steps)  # a short stage never comes to the last batch
    bounds = batch_bounds(min(num_images, num_steps * size * stage.accumulate), size, fewest=fewest)
    return 1 in np.diff(bounds)


def _takes_one(trial: nn.Module, stage: Stage) -> bool:
    """Return whether the network, as the stage trains it, takes a batch of one image."""
    pixels = preprocessing_of(trial).pixels
    image = torch.zeros(1, pixels.num_channels, *(stage.train_size or pixels.size))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial(image)
    except ValueError as error:
        return _REFUSAL not in str(error)
    except Exception:  # whatever else is wrong with it has nothing to do with the number of images
        return True
    return True


def _alone(stage: Stage, num_images: int, batch_size: int) -> SettingsError:
    images = (
        "one training image"
        if num_images == 1
        else f"{quantity(num_images, 'training image')} in batches of {batch_size}"
    )
    kept = "`bn: frozen` in this stage, which keeps the statistics that the batch norms have"
    size = 2 if num_images % 2 == 0 else 3
    return SettingsError(
        f"In stage {stage.name!r}, {images} leave one image alone in a batch, and the batch norms that train here "
        "cannot take the statistics of one.",
        "at least two images in every batch of this stage",
        f"Add images, or set {kept}." if num_images == 1 else f"Set `batch_size: {size}` or more, or {kept}.",
    )
