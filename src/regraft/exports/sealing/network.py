"""Pixels of the network's size -> what a sealed file gives: normalisation, network, temperature, probabilities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from regraft.data.decode.preprocess import Preprocessing
from regraft.evaluation.trust.features import featured_graph
from regraft.evaluation.trust.novelty import NEIGHBOUR, blended, energy, lowered, placed
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import probabilities
from regraft.models.describe.trust import Detector

__all__ = ["SealedNetwork", "sealed_network"]


class SealedNetwork(nn.Module):
    """Pixels uint8 (N, C, h, w) -> probabilities (N, classes), and how typical each image is where that is asked for.

    Of a network for segmentation: the logits (N, classes, h, w), divided by its temperature.

    Args:
        network: Images -> logits, or -> (features, logits) where there is a detector.
        preprocessing: How pixels become its input.
        output: What the logits mean.
        calibration: What they are divided by; None for nothing.
        detector: Tells how strange an image is; None for a network that keeps none.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        output: str,
        calibration: Calibration | None,
        detector: Detector | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalise = Normaliser(preprocessing)
        self.output = output
        self.calibration = calibration
        self.typicality = None if detector is None else _Typicality(detector)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of what it gives, in order."""
        if self.output == "segmentation":
            return ("logits",)
        return ("probabilities",) if self.typicality is None else ("probabilities", "typicality")

    def forward(self, pixels_NCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        given = self.network(self.normalise(pixels_NCHW))
        features, raw = given if isinstance(given, tuple) else (None, given)
        logits: Tensor = raw.float()
        calibrated = logits if self.calibration is None else self.calibration(logits, self.output)
        if self.output == "segmentation":
            return calibrated
        shares: Tensor = probabilities(self.output, calibrated).float()
        if self.typicality is None:
            return shares
        typicality: Tensor = self.typicality(features, logits)
        return shares, typicality


def sealed_network(model: nn.Module) -> SealedNetwork:
    """Return a copy of a network as it is exported, in fp32 on the CPU."""
    info = info_of(model)
    detector = None if info.trust is None else info.trust.detector
    network = copy.deepcopy(model).cpu().float().eval()
    if detector is not None and detector.kind != "energy":
        graph = featured_graph(network)
        detector = None if graph is None else detector
        network = network if graph is None else graph
    sealed = SealedNetwork(network, preprocessing_of(model), info.output, info.calibration, detector)
    return sealed.eval().requires_grad_(False)


class _Typicality(nn.Module):
    """Features and logits -> the share of validation images that look at least as strange.

    The same scores as `regraft.evaluation.trust.novelty`, in operators that ONNX has.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.score = _SCORES[detector.kind]
        self.tensors = nn.ParameterDict(
            {name: nn.Parameter(tensor.float(), requires_grad=False) for name, tensor in detector.tensors.items()}
        )
        self.typical = nn.Parameter(detector.typical.float(), requires_grad=False)

    def forward(self, features: Tensor | None, logits: Tensor) -> Tensor:
        scores = self.score(dict(self.tensors.items()), logits if features is None else features.float(), logits)
        stranger = (self.typical >= lowered(scores)[:, None]).float().sum(1)
        share: Tensor = (1 + stranger) / (1 + len(self.typical))
        return share


Tensors = Mapping[str, Tensor]


def _apart(points: Tensor, others: Tensor) -> Tensor:
    """Return the squared distances (N, M) of each of N points from each of M."""
    return (points[:, None] - others).square().sum(2)


def _distance(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    points, centres = F.normalize(features, dim=1) - tensors["mean"], tensors["centres"]
    inside, others = points @ tensors["basis"], centres @ tensors["basis"]
    scale = tensors["precision"].sqrt()
    outside = (_apart(points, centres) - _apart(inside, others)).clamp(min=0)
    return (_apart(inside * scale, others * scale) + outside * tensors["rest"]).amin(1).sqrt()


def _neighbours(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    here, bank = placed(tensors, features), tensors["bank"]
    nearest = _apart(here, bank).topk(min(NEIGHBOUR, len(bank)), dim=1, largest=False).values
    return nearest.amax(1).sqrt()


def _blend(tensors: Tensors, features: Tensor, logits: Tensor) -> Tensor:
    return blended(tensors, _neighbours(tensors, features, logits), energy(tensors, features, logits))


_SCORES: Mapping[str, Callable[[Tensors, Tensor, Tensor], Tensor]] = {
    "blend": _blend,
    "distance": _distance,
    "neighbours": _neighbours,
    "energy": energy,
}
