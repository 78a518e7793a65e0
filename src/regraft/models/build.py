"""Names -> `nn.Module`: every timm network by its timm name, AlexNet, and the forms of keras.applications."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from regraft.errors import RegraftError, SettingsError, nearest
from regraft.models.adjust import adjust_layers
from regraft.models.graft import graft
from regraft.models.info import info_of, set_info
from regraft.models.keras.mobile import Normalization
from regraft.models.match import match_weights
from regraft.models.own import OWN
from regraft.models.pretrained import find_pretrained
from regraft.weights.file import read_weights

__all__ = ["build_model", "is_buildable", "list_models", "load_pretrained"]

_log = logging.getLogger("regraft")


def build_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    seed: int = 0,
    **arguments: Any,
) -> nn.Module:
    """Build a network in the form that its weights were made for.

    Args:
        name: A timm name (`resnet50`, `tf_efficientnet_lite0`, `resnet50.a1_in1k`), `alexnet`, or `keras_NAME`
            (`keras_resnet50`, `keras_vgg16`: the networks of keras.applications).
        weights: A weights file of any format, `"pretrained"`, or None for random weights.
        num_classes: Rows of the classifier; None keeps the architecture's own (1000 for most).
        in_channels: Channels of the input.
        seed: Random weights are a function of it.
        **arguments: Passed to the architecture as they are (`drop_path_rate`, `bn_eps`); `adjusted` is what
            `graft(..., adjust=True)` changed, by layer.

    Raises:
        SettingsError: There is no such architecture (the nearest names are offered), or an argument it does not take.
        WeightsError: The weights cannot be found or read, or do not fill the backbone.
    """
    adjusted = arguments.pop("adjusted", {})
    options = {"in_chans": in_channels, **arguments}
    if num_classes is not None:
        options["num_classes"] = num_classes
    model = _create(name, options, seed)
    adjust_layers(model, adjusted)
    info = info_of(model)
    info.architecture = name
    info.args = {key: value for key, value in options.items() if (key, value) != ("in_chans", 3)}
    if adjusted:
        info.args["adjusted"] = adjusted
    set_info(model, info)
    if weights is not None:
        load_pretrained(model, weights)
    return model


def load_pretrained(model: nn.Module, weights: str | Path, *, skip: Sequence[str] = ()) -> nn.Module:
    """Read, match and graft weights into `model`, in place, and return it.

    Args:
        model: A network that `build_model` built.
        weights: A weights file, or `"pretrained"`.
        skip: Patterns of tensors that are left out on request.

    Raises:
        WeightsError: The weights cannot be found or read, or do not fill the backbone.
    """
    path = find_pretrained(info_of(model).architecture) if weights == "pretrained" else Path(weights)
    report = match_weights(read_weights(path), model, skip=skip)
    report.require("backbone")
    graft(model, report)
    if any(isinstance(module, Normalization) and module.lacks_rescaling for module in model.modules()):
        _log.warning(
            "%s comes from a network that Keras built with weights='imagenet', which scales its images once more; "
            "build the model with rescaling=True to do the same",
            path,
        )
    info_of(model).origin["weights"] = str(weights)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names that `build_model` takes and that fit a shell pattern."""
    return [name for name in sorted([*timm.list_models(), *OWN]) if fnmatch.fnmatch(name, pattern)]


def is_buildable(name: str) -> bool:
    """Whether `build_model` knows the architecture of this name."""
    return name in OWN or bool(timm.is_model(name))


def _create(name: str, options: dict[str, Any], seed: int) -> nn.Module:
    if not is_buildable(name):
        raise _unknown(name)
    _check_tag(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = OWN[name](**options) if name in OWN else timm.create_model(name, **options)
        except RegraftError:
            raise
        except Exception as error:  # an architecture raises whatever its own code raises on an argument
            raise SettingsError(
                f"{name!r} does not take these arguments ({type(error).__name__}: {error}).",
                "Expected arguments of the architecture, as timm spells them.",
                "Leave out the one that the message names.",
            ) from error
    return model.eval()


def _check_tag(name: str) -> None:
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(architecture + ".*")] if tag else []
    if tag and tag not in tags:
        raise SettingsError(
            f"{architecture!r} has no weights with the tag {tag!r}.",
            f"Its tags are: {', '.join(tags) or 'none'}.",
            f"Type `{architecture}.TAG` with one of them, or `{architecture}` alone.",
        )


def _unknown(name: str) -> SettingsError:
    known = [*timm.list_models(), *OWN]
    near = nearest(name, known) or nearest(name.lower().replace("-", "_"), known)
    return SettingsError(
        f"There is no model {name!r}.",
        f"Did you mean {near}?" if near else f"Expected one of the {len(known)} names that regraft knows.",
        "Type `regraft inspect 'resnet*'` to list names by pattern.",
    )
