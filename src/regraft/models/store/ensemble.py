"""Several models of the same classes as one, which predicts the mean of their probabilities."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, set_info

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Images -> the logits whose probabilities are the mean of the members' probabilities.

    Args:
        models: From `load_model`; they have the same class names, preprocessing and output.

    Raises:
        SettingsError: They differ in one of these.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        infos = [info_of(model) for model in models]
        if len({repr((info.class_names, info.preprocessing, info.output)) for info in infos}) != 1:
            raise SettingsError(
                "These models cannot predict together: their classes, preprocessing or outputs differ.",
                "models that were trained by one recipe, such as the folds of a cross-validation",
                "predict with each of them",
            )
        self.members = nn.ModuleList(models)
        info = copy.deepcopy(infos[0])
        info.architecture = f"regraft/ensemble of {len(models)} {info.architecture}"
        info.head = info.feature_stages = ()
        info.calibration = None  # each member's own is applied before the mean
        info.trust = None
        own = [i.thresholds if i.calibration is None else i.calibration.thresholds(i.thresholds) for i in infos]
        info.thresholds = {name: sum(each[name] for each in own) / len(own) for name in own[0]}
        self.output = info.output
        set_info(self, info)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits = torch.stack([self._calibrated(member, images_NCHW) for member in self.members])
        if self.output == "softmax":
            return torch.logsumexp(F.log_softmax(logits, dim=2), dim=0) - math.log(len(self.members))
        return torch.logsumexp(F.logsigmoid(logits), dim=0) - torch.logsumexp(F.logsigmoid(-logits), dim=0)

    def _calibrated(self, member: nn.Module, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = member(images_NCHW).float()
        calibration = info_of(member).calibration
        return logits if calibration is None else calibration(logits, self.output)
