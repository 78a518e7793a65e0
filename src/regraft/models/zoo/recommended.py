"""A short list of backbones worth trying first, by how much time there is, each with its reason.

The choice follows two comparisons of public backbones: Goldblum et al., "Battle of the Backbones", NeurIPS 2023
(arXiv:2310.19909), where ConvNeXts pretrained with labels on ImageNet-21k lead, the tiny one among small networks; and
Jeevan and Sethi, "Which Backbone to Use", 2024 (arXiv:2406.05612), where ConvNeXt-Tiny, EfficientNetV2-S and
RegNetY-3.2GF hold across domains. `regraft rank` says what holds on one's own images.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GROUPS", "Recommended", "recommended", "recommended_for"]

_MINUTES = (5, 60)  # up to which a budget is one for fast networks, and for balanced ones


class Recommended(NamedTuple):
    """A backbone and why it is worth trying."""

    name: str
    reason: str


GROUPS: dict[str, tuple[Recommended, ...]] = {
    "fast": (
        Recommended("tf_efficientnet_lite0", "comes with regraft; 4.7 M parameters, fast on CPUs"),
        Recommended("mobilenetv4_conv_small.e2400_r224_in1k", "3.8 M parameters, made for phones and CPUs"),
        Recommended("resnet18.a1_in1k", "plain convolutions, fast on any device"),
    ),
    "balanced": (
        Recommended("tf_efficientnet_lite2", "6.1 M parameters, 260 pixels; in the extra `backbones`"),
        Recommended("efficientnet_b0.ra_in1k", "5.3 M parameters; strong for its size on small data sets"),
        Recommended("convnext_nano.in12k_ft_in1k", "15.6 M parameters, pretrained on 12,000 classes"),
        Recommended("regnety_032.ra_in1k", "19.4 M parameters; trains fast on GPUs for its accuracy"),
    ),
    "best": (
        Recommended("convnext_tiny.in12k_ft_in1k", "28.6 M parameters; the first one to try on a GPU"),
        Recommended("tf_efficientnetv2_s.in21k_ft_in1k", "21.5 M parameters, pretrained on 21,000 classes, 300 pixels"),
        Recommended("convnext_base.fb_in22k_ft_in1k", "88.6 M parameters, pretrained on 22,000 classes; wants a GPU"),
    ),
}


def recommended(name: str) -> tuple[str, Recommended] | None:
    """Return the group of a backbone and its entry; None where it is in none.

    Args:
        name: A timm name; without a tag it stands for the entry with any.
    """
    for group, entries in GROUPS.items():
        for entry in entries:
            if name in (entry.name, entry.name.partition(".")[0]):
                return group, entry
    return None


def recommended_for(seconds: float | None) -> tuple[str, ...]:
    """Return the groups that a time budget is enough for; without one, the fast and the balanced ones."""
    if seconds is None:
        return ("fast", "balanced")
    return tuple(GROUPS)[: 1 + sum(seconds > 60 * minutes for minutes in _MINUTES)]
