"""The networks that timm does not build: two AlexNets, the forms of keras.applications, Keras's own, U-Net, SegNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from regraft.models.keras_forms.forms import FORMS, build_form
from regraft.models.networks.alexnet import alexnet, torchvision_alexnet
from regraft.models.networks.applications import APPLICATIONS, PREFIX, build_application
from regraft.models.segment.segnet import segnet
from regraft.models.segment.unet import unet

__all__ = ["OWN", "SEGMENTERS"]

SEGMENTERS = ("unet", "segnet")  # they name the class of each pixel
OWN: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet,
    "torchvision_alexnet": torchvision_alexnet,
    "unet": unet,
    "segnet": segnet,
    **{name: partial(build_form, name) for name in FORMS},
    **{name: partial(build_application, name) for name in (PREFIX + known for known in APPLICATIONS)},
}
