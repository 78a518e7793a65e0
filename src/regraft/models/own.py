"""The networks that regraft builds itself: Caffe's and torchvision's AlexNet, and the forms of keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from regraft.models.alexnet import alexnet, torchvision_alexnet
from regraft.models.keras.forms import FORMS, build_form

__all__ = ["OWN"]

OWN: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "torchvision_alexnet": torchvision_alexnet,
    **{name: partial(build_form, name) for name in FORMS},
}
