"""The licence of the pretrained weights that a network began with."""

from __future__ import annotations

from torch import nn

from regraft.models.store.ensemble import Ensemble

__all__ = ["NOT_STATED", "weights_license"]

NOT_STATED = "not stated"


def weights_license(network: nn.Module) -> str:
    """Return the licence of the pretrained weights, as timm states it."""
    first = network.members[0] if isinstance(network, Ensemble) else network
    configs = [getattr(part, "pretrained_cfg", None) for part in (first, getattr(first, "encoder", None))]
    stated = [config.get("license") for config in configs if isinstance(config, dict)]
    return next((str(found) for found in stated if found), NOT_STATED)
