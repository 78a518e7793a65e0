"""Strides and epsilons that a weights file does not hold: changed to what the file's network had, when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from regraft.errors import SettingsError
from regraft.weights.report import MatchReport

__all__ = ["adjust_layers", "adjustments_of"]

Adjustments = dict[str, dict[str, Any]]


def adjustments_of(report: MatchReport) -> Adjustments:
    """Return the attributes to set so that layers match the file: {layer: {attribute: value}}, as plain data."""
    changes: Adjustments = {}
    for finding in report.findings:
        if finding.kind != "attribute" or finding.attribute not in ("stride", "eps"):
            continue
        value = list(finding.file_value) if isinstance(finding.file_value, tuple) else finding.file_value
        for layer in finding.layers:
            changes.setdefault(layer, {})[finding.attribute] = value
    return changes


def adjust_layers(model: nn.Module, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the attributes of layers, in place.

    Raises:
        SettingsError: A layer that the model does not have, or that has no such attribute.
    """
    modules = dict(model.named_modules())
    for layer, attributes in changes.items():
        module = modules.get(layer)
        lacking = [name for name in attributes if not hasattr(module, name)]
        if module is None or lacking:
            raise SettingsError(
                f"The network has no layer {layer!r}" + (f" with {', '.join(lacking)}." if lacking else "."),
                "strides and epsilons of its layers",
                "leave `adjusted` out, or choose the network that it was written for",
            )
        for attribute, value in attributes.items():
            setattr(module, attribute, tuple(value) if isinstance(value, list) else value)
