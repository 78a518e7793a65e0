"""`match_weights`: the matcher of `regraft.weights`, given a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from regraft.errors import require_type
from regraft.machine.collection import uncollected
from regraft.models.describe.info import info_of
from regraft.models.describe.slots import slots_of
from regraft.models.graft.beside import differences_from_config
from regraft.models.segment.match import match_encoder
from regraft.weights.file import WeightFile
from regraft.weights.match.match import match
from regraft.weights.report import Finding, MatchReport

__all__ = ["match_weights"]

_OLD_EPS = 1e-3  # of ResNet50 in Keras up to 2.2


@uncollected()
def match_weights(
    weights: WeightFile,
    model: nn.Module,
    *,
    skip: Sequence[str] = (),
    map: Mapping[str, str] | None = None,
    flip_stem: bool = False,
    adapt_input: bool = False,
    class_order: Sequence[int] | None = None,
    key: str | None = None,
    in_order: bool = False,
    part: Literal["encoder", "all"] | None = None,
) -> MatchReport:
    """Decide what of a weight file goes where in a model; nothing is changed.

    Args:
        weights: The file, from `read_weights`.
        model: The architecture that the file was made for.
        skip: Names or patterns (`fc8`, `head.*`) of layers or tensors, of either side, to leave out; `type:BatchNorm2d`
            leaves out all layers of the model of that kind. What is skipped of the file leaves before anything is
            decided.
        map: Pairs by hand, {name in the model: name in the file}, of layers or of single tensors.
        flip_stem: Whether the stem's input channels are reversed (a file for BGR images, a model for RGB ones).
        adapt_input: Whether a stem of another number of input channels is adapted (3 -> 1 added up, 3 -> N repeated).
        class_order: For each class of the model its row in the file's classifier.
        key: What the names of the part of the file to take begin with (`encoder_q`), where it holds several networks.
        in_order: Whether the order of a PyTorch file, which is that of definition, is taken as that of execution; where
            a file has no order, that of the numbers in its names.
        part: Of a network for segmentation, what the file holds: `encoder` (weights of a classification network, whose
            classifier and dense layers are left out and reported as dropped) or `all`; None finds out.

    Raises:
        WeightsError: `map`, `skip` or `key` names something that neither side has.
    """
    require_type(weights, WeightFile, "weights", 'read them with `rg.read_weights("FILE")`')
    require_type(model, nn.Module, "model", 'make one with `rg.build_model("resnet18")`')
    options: dict[str, Any] = {
        "flip_stem": flip_stem,
        "adapt_input": adapt_input,
        "class_order": class_order,
        "key": key,
        "in_order": in_order,
    }
    info = info_of(model)
    if part != "all" and info.origin.encoder is not None:
        return match_encoder(weights, model, skip=skip, map=map or {}, part=part, **options)
    report = match(weights, slots_of(model, info), skip=skip, map=map, model=info.architecture, **options)
    findings = [_hinted(finding, report.model) for finding in report.findings]
    if weights.path.is_file() and any(match.sources for match in report.matched):
        findings += differences_from_config(weights.path, model, info)
    return replace(report, findings=tuple(findings))


def _hinted(finding: Finding, model: str) -> Finding:
    """Return a finding with the argument that builds the other form of a network, where there is one."""
    if model != "keras_resnet50" or finding.attribute != "eps" or finding.model_value != _OLD_EPS:
        return finding
    return replace(finding, text=f"{finding.text} (--arg keras_version=3 builds the network of Keras 2.3 and later)")
