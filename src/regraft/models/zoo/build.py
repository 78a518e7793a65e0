"""Names -> `nn.Module`: every timm network by its timm name, AlexNet, the forms of keras.applications, Keras's own.

One order for all of them: the network is built as its weights were made for it, the weights go in, and then surgery
(`regraft.models.surgery.surgery`) makes it what was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from regraft.errors import RegraftError, SettingsError, require_type
from regraft.models.channels import stem_layers
from regraft.models.describe.info import info_of, set_info
from regraft.models.graft.adjust import adjust_layers
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.graft.unfilled import note_initial
from regraft.models.keras_forms.forms import arguments_for
from regraft.models.keras_forms.mobile import Normalization
from regraft.models.networks.builtin_models import OWN
from regraft.models.networks.names import check_name
from regraft.models.surgery.surgery import adapt, check_classes, num_classes_of, without_top
from regraft.models.zoo.arguments import check_arguments
from regraft.models.zoo.modelscope import local_weights
from regraft.models.zoo.pretrained import find_pretrained
from regraft.weights.axes import torch_shape
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.report import MatchReport

__all__ = ["build_model", "load_pretrained"]

_log = logging.getLogger("regraft")
_POOLINGS = (None, "none", "avg", "max")


def build_model(
    name: str,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | int | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int = 3,
    skip: Sequence[str] = (),
    match: Mapping[str, Any] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> nn.Module:
    """Build a network, with weights where they are asked for.

    Args:
        name: A timm name (`resnet50`, `tf_efficientnet_lite0`, `resnet50.a1_in1k`), `alexnet`, `keras_NAME`
            (`keras_resnet50`, `keras_vgg16`: the networks of keras.applications on timm's modules), or `keras:NAME`
            (`keras:ResNet50`: built by Keras itself; needs the extra `keras`); for segmentation `unet` and `segnet`
            (with `encoder`, `depth` and the rest as in `regraft.models.segment`).
        weights: A weights file of any format, `"pretrained"`, or None (or `"none"`) for random weights. The classifier
            and the stem are first built as the file has them; surgery comes after.
        classes: Names of the rows of the classifier, or only their number; None keeps those of the weights, or of the
            architecture (1000 for most, 2 for `unet` and `segnet`). Rows follow the names where the file has names; a
            file without names that has as many rows as there are names is taken to hold these classes in this order.
        include_top: False leaves out all that follows the last feature map.
        pooling: What a network without a top gives: None or `"none"` for the map (N, C, H, W), `"avg"` or `"max"` for
            its features (N, C).
        image_size: Side, or (height, width), of the images in pixels; None for the network's own.
        in_channels: Channels of the images; a pretrained stem is kept (see `regraft.models.channels.choose_mix`).
        skip: Patterns of tensors of the weights file that are left out.
        match: Further arguments of `match_weights` for these weights (`map`, `flip_stem`); `key` may also name a set of
            tensors, as in `read_weights`.
        seed: Random weights are a function of it.
        **arguments: Passed to the architecture as they are (`drop_path_rate`, `bn_eps`), where they describe a network
            (see `regraft.models.zoo.arguments`); `adjusted` is what `graft(..., adjust=True)` changed, by layer.

    Raises:
        SettingsError: There is no such architecture (the nearest names are offered), an argument that it does not take,
            arguments that contradict each other, images that are too small.
        WeightsError: The weights cannot be found or read, or do not fill the backbone.
    """
    require_type(name, str, "name", "give the name of a network, such as `resnet18`")
    check_name(name)
    classes = arguments.pop("num_classes", None) if classes is None else classes
    in_channels = arguments.pop("in_chans", in_channels)
    weights = None if weights == "none" else weights
    options_of_match = {**(match or {}), **({"skip": list(skip)} if skip else {})}
    _refuse_contradictions(weights, classes, include_top, pooling, in_channels, options_of_match, seed, arguments)
    options = {"in_chans": in_channels, **arguments}
    if classes is not None:
        options["num_classes"] = classes if isinstance(classes, int) else len(classes)
    if weights is None:
        model = _create(name, options, seed)
    else:
        model = _with_weights(name, options, seed, weights, options_of_match)
        if classes is not None and not isinstance(classes, int):
            _name_rows(model, classes)
    if not include_top:  # first: a top that flattens would refuse images of other sizes
        model = without_top(model, None if pooling == "none" else pooling)
    return _operated(model, classes, image_size, in_channels, seed)


def load_pretrained(model: nn.Module, weights: str | Path, *, skip: Sequence[str] = ()) -> nn.Module:
    """Read, match and graft weights into `model`, in place, and return it.

    Args:
        model: A network that `build_model` built as the weights were made for it.
        weights: A weights file, or `"pretrained"`.
        skip: Patterns of tensors that are left out on request.

    Raises:
        WeightsError: The weights cannot be found or read, or do not fill the backbone.
    """
    file = _read(model, weights)
    return _fill(model, file, match_weights(file, model, skip=skip), weights)


def _refuse_contradictions(
    weights: str | Path | None,
    classes: Sequence[str] | int | None,
    include_top: bool,
    pooling: str | None,
    in_channels: int,
    match: Mapping[str, Any],
    seed: int,
    arguments: Mapping[str, Any],
) -> None:
    rules = {
        "include_top is False, and classes are given; a network without a top has no classes": (
            include_top or classes is None
        ),
        f"pooling is {pooling!r}; expected none, avg or max": pooling in _POOLINGS,
        f"pooling is {pooling!r}, and include_top is True; it sets the output of a network without a top "
        "(a head takes `rg.adapt(model, head=rg.Head(pool=...))`)": not include_top or pooling in (None, "none"),
        f"in_channels is {in_channels!r}; expected a number from 1": isinstance(in_channels, int) and in_channels > 0,
        f"seed is {seed!r}; expected a whole number from 0": isinstance(seed, int) and seed >= 0,
        f"{', '.join(match)} would say how weights are matched, and there are none": weights is not None or not match,
        "classes are given as well as num_classes": "num_classes" not in arguments,
    }
    mistakes = [mistake for mistake, is_right in rules.items() if not is_right]
    if mistakes:
        raise SettingsError(
            "The network cannot be built as described.",
            "arguments that fit together",
            "leave out one of those that contradict each other",
            details=mistakes,
        )
    check_classes(classes)


def _operated(
    model: nn.Module,
    classes: Sequence[str] | int | None,
    image_size: int | tuple[int, int] | None,
    in_channels: int,
    seed: int,
) -> nn.Module:
    """Return the model after the surgery that is left once the weights are in."""
    info = info_of(model)
    surgery: dict[str, Any] = {"image_size": image_size}
    if in_channels != info.args.get("in_chans", 3):
        surgery["in_channels"] = in_channels
    if classes is not None and classes != info.args.get("num_classes"):
        surgery["classes"] = classes
    if all(value is None for value in surgery.values()):
        return model
    return adapt(model, seed=seed, **surgery)


def _with_weights(
    name: str, options: Mapping[str, Any], seed: int, weights: str | Path, match: Mapping[str, Any]
) -> nn.Module:
    """Return the network as the file was made for it, with the file's weights."""
    model = _create(name, options, seed)
    key, match = match.get("key"), {name: value for name, value in match.items() if name != "key"}
    file = _read(model, weights, key)
    decided = arguments_for(name, file.layers)
    if decided.keys() - options.keys():
        options = {**decided, **options}
        model = _create(name, options, seed)
    report = match_weights(file, model, **match)
    sizes = _sizes_of(file, report, model)
    if sizes:
        _log.info("the weights are for %s", ", ".join(f"{key} {value}" for key, value in sizes.items()))
        model = _create(name, {**options, **sizes}, seed)
        report = match_weights(file, model, **match)
    if key is not None:
        report = replace(report, options={**report.options, "key": key})
    return _fill(model, file, report, weights)


def _read(model: nn.Module, weights: str | Path, key: str | None = None) -> WeightFile:
    info = info_of(model)
    name = info.origin.encoder.name if info.origin.encoder else info.architecture
    if weights == "pretrained":
        return read_weights(find_pretrained(name))
    weights = local_weights(weights)
    _log.info("weights of %s: file %s", name, weights)
    return read_weights(weights, key=key)


def _sizes_of(file: WeightFile, report: MatchReport, model: nn.Module) -> dict[str, int]:
    """Return the numbers of classes and of input channels that the file's network had, where they are not the
    model's.
    """
    head = info_of(model).head[-1:]
    stem = stem_layers(model)
    sizes = {}
    for pair in report.wrong_shape:
        layer, _, leaf = pair.target.rpartition(".")
        source = file.tensors[pair.source]
        there, here = torch_shape(source.shape, source.axes), pair.target_shape
        if leaf == "weight" and layer.startswith(head) and _squeezed(there[1:]) == _squeezed(here[1:]):
            sizes["num_classes"] = there[0]
        elif leaf == "weight" and layer in stem and (there[0], *there[2:]) == (here[0], *here[2:]):
            sizes["in_chans"] = there[1]
    return sizes


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape without axes of length 1: a dense layer and a 1×1 convolution count as the same."""
    return tuple(length for length in shape if length > 1)


def _fill(model: nn.Module, file: WeightFile, report: MatchReport, weights: str | Path) -> nn.Module:
    graft(model, report)
    if any(isinstance(module, Normalization) and module.lacks_rescaling for module in model.modules()):
        _log.warning(
            "%s comes from a network that Keras built with weights='imagenet', which scales its images once more; "
            "build the model with rescaling=True to do the same",
            file.path,
        )
    info = info_of(model)
    info.origin.weights = str(weights)
    empty = _random_head(model, report)
    if empty:
        info.origin.new_layers = (*(name for name in info.new_layers if not info.is_head(name)), *empty)
    elif file.class_names is not None and len(set(file.class_names)) == num_classes_of(model):
        info.class_names = file.class_names
    return model


def _random_head(model: nn.Module, report: MatchReport) -> list[str]:
    """Return the layers of the head that the weights leave random."""
    info, filled = info_of(model), {match.target for match in report.matched}
    layers = {name.rpartition(".")[0]: None for name, _ in model.named_parameters() if name not in filled}
    return [layer for layer in layers if info.is_head(layer)]


def _name_rows(model: nn.Module, classes: Sequence[str]) -> None:
    """Name the rows of a file without class names that has as many rows as were named."""
    info = info_of(model)
    if info.class_names is None and not info.new_layers and num_classes_of(model) == len(classes):
        _log.info("the rows of the classifier are taken as they stand in the file: %s", ", ".join(classes))
        info.class_names = tuple(classes)


def _create(name: str, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Return the network with random weights, and the account of how it was built."""
    check_arguments(name, options)
    arguments = dict(options)
    adjusted = arguments.pop("adjusted", {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = OWN[name](**arguments) if name in OWN else timm.create_model(name, **arguments)
        except RegraftError:
            raise
        except Exception as error:  # an architecture raises whatever its own code raises on an argument
            raise SettingsError(
                f"{name!r} does not take these arguments ({type(error).__name__}: {error}).",
                "arguments of the architecture, as timm spells them",
                "leave out the one that the message names",
            ) from error
    adjust_layers(model, adjusted)
    info = info_of(model)
    info.architecture = name
    info.args = {key: value for key, value in arguments.items() if (key, value) != ("in_chans", 3)}
    if adjusted:
        info.args["adjusted"] = adjusted
    info.origin.build_seed = seed
    note_initial(model, info)
    set_info(model, info)
    return model.eval()
