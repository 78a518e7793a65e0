"""`keras_NAME`: the networks of keras.applications, built from timm's modules so that counts and outputs are Keras's.

What differs between the two, and what each difference costs, was measured against the framework itself; the tests with
the marker `oracle` measure it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import timm
from torch import nn

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing, Style
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, set_info
from regraft.models.describe.provenance import Provenance
from regraft.models.keras_forms.densenet import densenet_rows
from regraft.models.keras_forms.inception import inception_rows, to_keras_inception
from regraft.models.keras_forms.mobile import to_keras_efficientnet, to_keras_mobilenet
from regraft.models.keras_forms.mobile_rows import efficientnet_rows, mobilenet_rows, mobilenet_v2_rows
from regraft.models.keras_forms.norms import set_norms
from regraft.models.keras_forms.resnet import resnet_v2_rows, to_keras_resnet, to_keras_resnet_v2
from regraft.models.keras_forms.rows import Row, keras_rows
from regraft.models.keras_forms.xception import to_keras_xception, xception_rows

__all__ = ["FORMS", "Form", "KerasVersion", "arguments_for", "build_form"]

KerasVersion = Literal["2", "3"]

_NEW_NAME = re.compile(r"(^|/)conv\d_block\d+_\d_(conv|bn)")
_OLD_NAME = re.compile(r"(^|/)(res|bn)\d[a-z]_branch")
_OLD_EPS = 1e-3  # the default of Keras's batch norms, which its ResNets had until version 2.2


def _nothing(model: nn.Module) -> None:
    """Return timm's network."""


@dataclass(frozen=True)
class Form:
    """How one network of keras.applications comes from timm's.

    Attributes:
        timm_name: The network that it is made from.
        mode: Its preprocessing, as `keras.applications.imagenet_utils` names it; `raw` is none at all.
        rows: Keras's own listing without the top.
        change: What is changed in timm's network, in place.
        eps: The epsilon of its batch norms.
        momentum: Their momentum, in Keras's sense.
        size: Side of the images that it was made for, in pixels.
        arguments: What timm's network is built with.
        stages: The modules that end each resolution stage, where these are not timm's.
        head: The modules behind the last feature map.
    """

    timm_name: str
    mode: Style
    rows: Callable[[], tuple[Row, ...]]
    change: Callable[[nn.Module], None] = _nothing
    eps: float = 1e-3
    momentum: float = 0.99
    size: int = 224
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    head: tuple[str, ...] = ("classifier",)


_RESNET: dict[str, Any] = {"eps": 1.001e-5, "arguments": {"zero_init_last": False}, "head": ("fc",)}
_VGG_HEAD = ("pre_logits", "head")
_SAME = {"pad_type": "same"}
FORMS: dict[str, Form] = {
    "keras_vgg16": Form("vgg16", "caffe", partial(keras_rows, "vgg16"), head=_VGG_HEAD),
    "keras_vgg19": Form("vgg19", "caffe", partial(keras_rows, "vgg19"), head=_VGG_HEAD),
    "keras_resnet50": Form("resnet50", "caffe", partial(keras_rows, "resnet50"), to_keras_resnet, **_RESNET),
    "keras_resnet101": Form("resnet101", "caffe", partial(keras_rows, "resnet101"), to_keras_resnet, **_RESNET),
    "keras_resnet50v2": Form(
        "resnetv2_50",
        "tf",
        resnet_v2_rows,
        to_keras_resnet_v2,
        eps=1.001e-5,
        arguments={"stem_type": "fixed"},  # zeros around the first pooling, which sees values below zero
        stages=("stem.conv", "stages.0.blocks.1", "stages.1.blocks.2", "stages.2.blocks.4", "stages.3"),
        head=("head",),
    ),
    "keras_inception_v3": Form("inception_v3", "tf", inception_rows, to_keras_inception, size=299, head=("fc",)),
    "keras_xception": Form("legacy_xception", "tf", xception_rows, to_keras_xception, size=299, head=("fc",)),
    "keras_mobilenet": Form("mobilenetv1_100", "tf", mobilenet_rows, to_keras_mobilenet, arguments=_SAME),
    "keras_mobilenetv2": Form("mobilenetv2_100", "tf", mobilenet_v2_rows, momentum=0.999, arguments=_SAME),
    "keras_densenet121": Form("densenet121", "torch", densenet_rows, eps=1.001e-5),
    "keras_efficientnetb0": Form("tf_efficientnet_b0", "raw", efficientnet_rows),
}


def build_form(
    name: str,
    *,
    keras_version: KerasVersion | None = None,
    rescaling: bool | None = None,
    in_chans: int = 3,
    **arguments: Any,
) -> nn.Module:
    """Build a network of keras.applications as a torch module that describes itself.

    Args:
        name: A name of `FORMS`.
        keras_version: `"2"` is ResNet50 with the names and the epsilon (1e-3) of Keras up to 2.2, and the default for
            it alone where no weights file says otherwise (`arguments_for`); `"3"` all later ones. The other networks
            are the same in both.
        rescaling: EfficientNet alone: whether the weights belong to a network that Keras built with
            `weights="imagenet"`, which divides its input once more by the square root of ImageNet's deviation.
        in_chans: Channels of the images.
        **arguments: Those of timm's network, as `num_classes` and `drop_rate`.

    Raises:
        SettingsError: A version that does not exist, or `rescaling` for a network without one.
    """
    form = FORMS[name]
    version = _checked_version(name, keras_version)
    model: nn.Module = timm.create_model(form.timm_name, **{**form.arguments, "in_chans": in_chans, **arguments})
    form.change(model)
    set_norms(model, eps=_OLD_EPS if _is_old(name, version) else form.eps, momentum=form.momentum)
    if form.mode == "raw":
        to_keras_efficientnet(model, rescaling=bool(rescaling))
    elif rescaling is not None:
        raise SettingsError(
            f"{name!r} was given `rescaling`, but does not normalise its images itself.",
            "of the networks of keras.applications only EfficientNet does",
            "leave it out",
        )
    return _described(model, name, version, in_chans)


def arguments_for(name: str, layers: Iterable[str]) -> dict[str, Any]:
    """Find the arguments of a form that the names of a weights file's layers decide: ResNet50 of which Keras.

    Args:
        name: A network's name, of `FORMS` or not.
        layers: The names of the file's layers.
    """
    if name != "keras_resnet50":
        return {}
    votes = {"3": 0, "2": 0}
    for layer in layers:
        votes["3"] += bool(_NEW_NAME.search(layer))
        votes["2"] += bool(_OLD_NAME.search(layer))
    version, count = max(votes.items(), key=lambda item: item[1])
    return {"keras_version": version} if count else {}


def _described(model: nn.Module, name: str, version: str, in_chans: int) -> nn.Module:
    form = FORMS[name]
    info = ModelInfo(
        architecture=name,
        preprocessing=_preprocessing(form) if in_chans == 3 else None,
        head=form.head,
        feature_stages=form.stages or _timm_stages(model),
        origin=Provenance(keras_rows=keras_rows("resnet50", "2") if _is_old(name, version) else form.rows()),
    )
    return set_info(model, info)


def _timm_stages(model: nn.Module) -> tuple[str, ...]:
    listed: Any = model.feature_info
    return tuple(stage["module"] for stage in getattr(listed, "info", listed))


def _preprocessing(form: Form) -> Preprocessing:
    """Return `preprocess_input` of the network's module in Keras, as mean and deviation on the scale 0 to 1."""
    pixels = PixelProgram((form.size, form.size), interpolation="bilinear")
    return Preprocessing.styled(form.mode, pixels)


def _is_old(name: str, version: str) -> bool:
    return name == "keras_resnet50" and version == "2"


def _checked_version(name: str, version: str | None) -> str:
    if version is None:
        return "2" if name == "keras_resnet50" else "3"
    if str(version) not in get_args(KerasVersion):
        raise SettingsError(
            f"keras_version is {version!r}.",
            "'2' (names such as res5c_branch2c) or '3' (conv5_block3_out, Keras 2.3 and later)",
            "`keras_version=2` or `keras_version=3`",
        )
    return str(version)
