"""Mean and variance of what a network with dropout predicts, over many draws of the dropout (Monte Carlo dropout).

Source: A. Kendall, V. Badrinarayanan, R. Cipolla, "Bayesian SegNet", 2015: the variance of the softmax over the draws
says where the network does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regraft.data.random import bits
from regraft.errors import SettingsError
from regraft.models.describe.trace import plain

__all__ = ["BayesianMaps", "bayesian_predict"]

_STREAM = 0x6261796573  # keeps these draws apart from others with the same seed
_KINDS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)


@dataclass(frozen=True)
class BayesianMaps:
    """What the draws give for each pixel.

    Attributes:
        mean: (N, classes, H, W), fp32: the mean probability of each class; the classes of a pixel add up to 1.
        variance: (N, classes, H, W), fp32: the variance of the probability over the draws (of the draws themselves, not
            corrected for their number).
    """

    mean: Tensor
    variance: Tensor


@torch.no_grad()
def bayesian_predict(model: nn.Module, images: Tensor, *, samples: int = 16, seed: int = 0) -> BayesianMaps:
    """Predict each image `samples` times with dropout on and everything else as in evaluation.

    The draws are a function of the seed and of the image's size, not of the other images of the batch. The model's
    own modes and torch's random state are what they were before.

    Args:
        model: A network with dropout, as `build_model("segnet", dropout=0.5)`.
        images: (N, C, H, W), normalised, on the model's device.
        samples: How many draws.
        seed: The draws are a function of it.

    Raises:
        SettingsError: The model has no dropout, or no draws are asked for.
    """
    model = plain(model)
    drops = [module for module in model.modules() if isinstance(module, _KINDS) and module.p > 0]
    if not drops or samples < 1:
        raise SettingsError(
            "The model has no dropout to draw." if not drops else f"samples is {samples}.",
            "a network with dropout above 0, and at least one draw",
            "build it with dropout, as `rg.build_model('segnet', dropout=0.5)`, or raise `samples`",
        )
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _dropping(model, drops):
        maps = [_draws(model, image[None], samples, seed) for image in images]
    return BayesianMaps(*(torch.cat(parts) for parts in zip(*maps, strict=True)))


def _draws(model: nn.Module, image: Tensor, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the draws, updated draw by draw (Welford's method), so that none has to be kept."""
    mean = torch.zeros(())
    squares = torch.zeros(())
    for draw in range(samples):
        torch.manual_seed(int(bits(seed, _STREAM, draw, num=1)[0, 0] >> 1))
        probabilities = model(image).float().softmax(dim=1)
        if draw == 0:
            mean, squares = torch.zeros_like(probabilities), torch.zeros_like(probabilities)
        away = probabilities - mean
        mean += away / (draw + 1)
        squares += away * (probabilities - mean)
    return mean, squares / samples


@contextmanager
def _dropping(model: nn.Module, drops: Sequence[nn.Module]) -> Iterator[None]:
    """Switch to evaluation mode but for the dropout; the attribute is set, because frozen modules keep their own
    mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        for module in drops:
            module.training = True
        yield
    finally:
        for module, mode in modes:
            module.training = mode
