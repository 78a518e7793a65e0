"""Optimizers that are taken from torch are those of timm's registry."""

from __future__ import annotations

import pytest
from timm.optim import get_optimizer_info
from torch.optim import SGD, Adam, AdamW

from regraft.plan.optimizers import can_fuse, has_momentum, missing_optimizer, optimizer_class
from regraft.settings.optimizers import OPTIMIZERS


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("auto", "lbfgs")])
def test_a_name_means_what_timm_says(name: str) -> None:
    info = get_optimizer_info(name)
    assert missing_optimizer(name) is None
    assert can_fuse(name) == (info.opt_class in (SGD, Adam, AdamW))
    assert has_momentum(name) == bool(info.has_momentum)
    made = optimizer_class(name)
    kind = getattr(made, "func", made)
    assert issubclass(kind, info.opt_class)
    assert getattr(made, "keywords", {}) == (info.defaults or {})


def test_others_are_missing() -> None:
    assert "which timm" in (missing_optimizer("adamant") or "")
