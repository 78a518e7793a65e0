"""What turns a network's logits into probabilities that mean what they say: temperatures, fitted on validation images.

No class is decided otherwise: all logits of an image are divided by the same number, and each label's by its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """Temperatures and the images that they were fitted on.

    Attributes:
        temperatures: One for all images; or one for each class, used where that class has the largest logit; or one
            for each label of a network that gives several.
        num_images: How many validation images there were.
    """

    temperatures: tuple[float, ...]
    num_images: int

    def __call__(self, logits: Tensor, output: str) -> Tensor:
        """Return logits (N, C), divided by their temperatures.

        Args:
            logits: As the network gives them.
            output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        """
        if len(self.temperatures) == 1:
            return logits / self.temperatures[0]
        each = torch.tensor(self.temperatures, dtype=logits.dtype, device=logits.device)
        return logits / (each if output == "multilabel" else each[logits.argmax(1)][:, None])

    def thresholds(self, raw: Mapping[str, float]) -> dict[str, float]:
        """Return from which calibrated probabilities on names are given that are given from these raw ones on.

        Args:
            raw: By name, in the order of the logits.
        """
        return {name: self._threshold(share, place) for place, (name, share) in enumerate(raw.items())}

    def _threshold(self, share: float, place: int) -> float:
        if not 0 < share < 1 or share == 0.5:
            return share
        temperature = self.temperatures[place if len(self.temperatures) > 1 else 0]
        return 1 / (1 + math.exp(-math.log(share / (1 - share)) / temperature))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"temperatures": list(self.temperatures), "num_images": self.num_images}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], num_logits: int) -> Calibration:
        """Read plain data.

        Raises:
            ValueError: It is not what `to_dict` gives for so many logits.
        """
        temperatures, num_images = record["temperatures"], record["num_images"]
        are_numbers = isinstance(temperatures, list) and all(
            isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
            for value in temperatures
        )
        if not are_numbers or len(temperatures) not in (1, num_logits) or type(num_images) is not int:
            raise ValueError("calibration is not one positive temperature, or one for each logit")
        return cls(tuple(map(float, temperatures)), num_images)
