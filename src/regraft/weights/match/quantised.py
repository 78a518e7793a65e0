"""Integers of the file that would fill weights: what is left of quantised ones without their scales."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.weights.file import SourceTensor
from regraft.weights.match.bind import Bound
from regraft.weights.naming.inert import is_float, is_inert_name
from regraft.weights.naming.layers import KERNEL_ROLES, Slot
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["quantised"]


def quantised(bound: Bound, slots: Sequence[Slot]) -> list[Finding]:
    """Return integers of the file that would fill kernels, biases and normalisations: the scales that they need are
    lost.
    """
    roles = {*KERNEL_ROLES, "bias", "gamma", "beta", "mean", "variance"}
    found = [
        source
        for slot in slots
        if slot.name in bound.matches
        for source in bound.matches[slot.name].sources
        if not is_float(source) and (slot.role in roles or _is_packed(source))
    ]
    if not found:
        return []
    dtypes = ", ".join(sorted({source.dtype for source in found}))
    text = (
        f"{some([source.name for source in found])} hold integers ({dtypes}) where the model has real numbers: "
        "quantised values mean nothing without their scales, which were not applied; take the file before quantisation"
    )
    return [Finding("quantised", "", text, serious=True)]


def _is_packed(tensor: SourceTensor) -> bool:
    """Return whether a tensor of no known role holds the short integers of quantisation; indices have more bits."""
    return tensor.dtype in ("int8", "uint8", "int16") and not is_inert_name(tensor.name)
