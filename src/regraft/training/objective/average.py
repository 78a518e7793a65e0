"""The moving average of the weights (EMA) that a stage validates and keeps, in the place of the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from regraft.models.describe.trace import plain
from regraft.plan.freezing.freeze import Freeze

__all__ = ["Average"]


class Average:
    """average = d * average + (1 - d) * weights after each step, with d = min(decay, (1 + n) / (10 + n)) at step n.

    The ramp (as TensorFlow's ExponentialMovingAverage with `num_updates`) lets short stages forget where they began.
    It holds what trains, and the moving statistics of norms; what is frozen is neither held nor touched.

    Args:
        model: Its weights now are what the average begins with.
        frozen: What trains in the stage.
        decay: The largest share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, frozen: Freeze, decay: float) -> None:
        model = plain(model)
        self.decay = decay
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        moving = [name for name in frozen.moving if tensors[name].is_floating_point()]
        self._held = {name: tensors[name] for name in (*frozen.trainable, *moving)}
        self._spare = {name: tensor.detach().clone() for name, tensor in self._held.items()}
        self._is_applied = False

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averages by name; their own memory."""
        return self._data() if self._is_applied else self._spare

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that the optimizer moves, by name; their own memory."""
        return self._spare if self._is_applied else self._data()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages with the weights after the stage's step `step`, from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averages.values()), list(self.weights.values()), share)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model inside, and its weights back outside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def settle(self) -> None:
        """Put the averages into the model for good; `weights` are still those that the optimizer moved."""
        self._swap()

    @torch.no_grad()
    def restore_weights(self, stored: Mapping[str, Tensor]) -> None:
        """Keep the averages that the model was loaded with, and give it the weights of the same moment."""
        for name, tensor in self._held.items():
            self._spare[name].copy_(tensor)
            tensor.data.copy_(stored[name])

    def _data(self) -> dict[str, Tensor]:
        return {name: tensor.data for name, tensor in self._held.items()}

    def _swap(self) -> None:
        for name, tensor in self._held.items():
            tensor.data, self._spare[name] = self._spare[name], tensor.data
        self._is_applied = not self._is_applied
