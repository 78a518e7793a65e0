"""Surgery, after the graft: classes, head, image size, channels. The original is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError, require_type
from regraft.models.channels import change_stem, choose_mix, mixed_preprocessing
from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.describe.outputs import check_num_classes, num_logits
from regraft.models.describe.trace import image_channels, plain
from regraft.models.keras.network import KerasNetwork
from regraft.models.networks.names import is_buildable
from regraft.models.surgery.class_rows import keep_rows as keep_rows_of
from regraft.models.surgery.classifier_swap import replace_after_features, replace_head
from regraft.models.surgery.head import TopModule
from regraft.models.surgery.trial import check_runs
from regraft.settings.head import Head
from regraft.wording import quantity

__all__ = ["adapt", "adapt_as_stored", "check_classes", "default_preprocessing", "num_classes_of", "without_top"]


def adapt(
    model: nn.Module,
    *,
    classes: Sequence[str] | int | None = None,
    image_size: int | tuple[int, int] | None = None,
    head: Head | None = None,
    in_channels: int | None = None,
    bands: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    keep_rows: bool = True,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of `model` with other classes, head, image size or channels; `model` itself stays as it was.

    Args:
        model: A network from `build_model`, usually after `graft`, or any `nn.Module` that classifies images.
        classes: The class names, one for each row of the new classifier, in order; or only their number, which keeps
            a head that has so many; None keeps the head as it is.
        image_size: Side, or (height, width), of the images in pixels; None keeps the network's own.
        head: The form of the new head; None keeps the form that it has.
        in_channels: Channels of the image; the pretrained stem is kept (see `regraft.models.channels.choose_mix`).
        bands: Names of the channels: those that the stem knows (R, G, B) keep their kernels, others start from the
            average. `["R", "G", "B"]` turns a network that was trained on BGR images into one for RGB images.
        preprocessing: The decode-resize-normalise program; None takes what the weights were trained with.
        keep_rows: Whether classes that the network already has by name keep their rows of the classifier.
        seed: The new layers' weights are a function of it.

    Raises:
        SettingsError: Fewer or more classes than the output can have, a name twice, a head that this network cannot
            take, images too small, channels that contradict each other.
    """
    require_type(model, nn.Module, "model", 'make one with `rg.build_model("resnet18")`')
    adapted, preprocessing, num_rows = _adapted(
        model,
        classes=classes,
        image_size=image_size,
        head=head,
        in_channels=in_channels,
        bands=bands,
        preprocessing=preprocessing,
        keep_rows=keep_rows,
        seed=seed,
    )
    check_runs(adapted, preprocessing, num_rows)
    return adapted


def adapt_as_stored(
    model: nn.Module,
    *,
    classes: Sequence[str],
    head: Head,
    in_channels: int | None,
    preprocessing: Preprocessing,
    in_place: bool = False,
) -> nn.Module:
    """Do what `adapt` does for a network that ran when it was stored, which is not tried on an image again.

    In place, the rows of the head that it has are not looked at: its weights are still to come.
    """
    return _adapted(
        model,
        classes=classes,
        head=head,
        in_channels=in_channels,
        preprocessing=preprocessing,
        keep_rows=not in_place,
        in_place=in_place,
    )[0].eval()


def _adapted(
    model: nn.Module,
    *,
    classes: Sequence[str] | int | None,
    head: Head | None,
    in_channels: int | None,
    preprocessing: Preprocessing | None,
    image_size: int | tuple[int, int] | None = None,
    bands: Sequence[str] | None = None,
    keep_rows: bool = True,
    seed: int = 0,
    in_place: bool = False,
) -> tuple[nn.Module, Preprocessing, int | None]:
    """Return the adapted copy (or the model itself), its preprocessing, and the rows of its new head, if it got one."""
    old = info_of(model)
    if head is not None and classes is None:
        classes = old.class_names or ()
    if classes == num_classes_of(model) and head is None:
        classes = None
    head = _wanted_head(old, head or Head(**{**old.args.get("head", {}), "output": old.output}))
    head = _for_output(old, head)
    check_classes(classes, head.resolved_output)
    adapted, info = model if in_place else copy.deepcopy(model), copy.deepcopy(old)
    info.origin.rows, info.origin.seed = None, seed
    if not is_buildable(info.architecture) or (not _knows_itself(model) and not hasattr(model, "pretrained_cfg")):
        info.args["own_module"] = True
    preprocessing = _with_channels(adapted, info, preprocessing, in_channels, bands)
    if image_size is not None:
        size = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
        preprocessing = replace(preprocessing, pixels=replace(preprocessing.pixels, size=size))
    if isinstance(adapted, KerasNetwork):
        adapted.set_input_size(preprocessing.pixels.size)
    info.preprocessing = preprocessing
    if classes is not None:
        _renew_head(model, adapted, info, head, classes, preprocessing, keep=keep_rows, seed=seed)
    set_info(adapted, info)
    return adapted, preprocessing, None if classes is None else num_logits(head.resolved_output, _count(classes))


def _renew_head(
    model: nn.Module,
    adapted: nn.Module,
    info: ModelInfo,
    head: Head,
    classes: Sequence[str] | int,
    preprocessing: Preprocessing,
    *,
    keep: bool,
    seed: int,
) -> None:
    """Put in a head for these classes, in place, with the rows of those that `model` knows."""
    _check_head(info, head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        replace_head(adapted, info, head, num_logits(head.resolved_output, _count(classes)), preprocessing)
    _describe_head(info, head, classes, preprocessing.pixels.size)
    set_info(adapted, info)
    if not isinstance(classes, int):
        rows = keep_rows_of(model, adapted, classes, wanted=keep)
        info.origin.rows = rows
        if not rows.added:
            info.origin.new_layers = tuple(name for name in info.new_layers if not info.is_head(name))


def without_top(model: nn.Module, pooling: str | None) -> nn.Module:
    """Take off, in place, all that follows the last feature map; the model is returned.

    Args:
        model: A network that `build_model` built.
        pooling: `avg` or `max` for features (N, C); None for the map (N, C, H, W).

    Raises:
        SettingsError: The network has no feature map.
    """
    info = info_of(model)
    replace_after_features(model, info, lambda shape: TopModule(pooling), default_preprocessing(model))
    info.class_names = None
    info.args = {key: value for key, value in info.args.items() if key != "num_classes"}
    info.args |= {"include_top": False} | ({"pooling": pooling} if pooling else {})
    info.origin.new_layers = ()
    return set_info(model, info)


def num_classes_of(model: nn.Module) -> int | None:
    """Return the number of classes; None for a network without a top, or one that does not say."""
    number = info_of(model).args.get("num_classes", getattr(model, "num_classes", None))
    return int(number) if isinstance(number, int) and number > 0 else None


def _count(classes: Sequence[str] | int) -> int:
    return classes if isinstance(classes, int) else len(classes)


def _wanted_head(info: ModelInfo, head: Head) -> Head:
    """Return the head to put in: for a network without a top, the same with a `pool`."""
    if info.args.get("include_top", True) or head.pool is not None:
        return head
    return replace(head, pool=info.args.get("pooling", "avg"))


def _for_output(info: ModelInfo, head: Head) -> Head:
    """Return the head for this network: whether each pixel gets a class is the network's matter, not the head's."""
    maps = info.output == "segmentation"
    head = replace(head, output=head.resolved_output)
    if maps and head.output in ("softmax", "segmentation") and head.is_plain:
        return replace(head, output="segmentation")
    if maps:
        raise SettingsError(
            f"{info.architecture!r} names the class of every pixel, so its head is one convolution with a softmax.",
            "a head without `pool`, `hidden` and `output`",
            "leave them out; `dropout` before the classifier is possible",
        )
    if head.output == "segmentation":
        raise SettingsError(
            f"{info.architecture!r} names the class of an image, not of its pixels.",
            "a network for segmentation where the head's output is segmentation",
            "build it as the encoder of one: `rg.build_model('unet', encoder=...)`",
        )
    return head


def default_preprocessing(model: nn.Module) -> Preprocessing:
    """Return the preprocessing of the network's pretraining, as far as it says; ImageNet's default otherwise."""
    info = info_of(model)
    if info.preprocessing is not None:
        return info.preprocessing
    config = getattr(model, "pretrained_cfg", None)
    preprocessing = Preprocessing.from_timm_cfg(dict(config) if isinstance(config, dict) else {})
    channels = image_channels(model)
    if channels in (None, 3):
        return preprocessing
    return mixed_preprocessing(preprocessing, choose_mix(preprocessing.channels, in_channels=channels))


def _knows_itself(model: nn.Module) -> bool:
    return isinstance(getattr(plain(model), "regraft_info", None), ModelInfo)


def _with_channels(
    adapted: nn.Module,
    info: ModelInfo,
    preprocessing: Preprocessing | None,
    in_channels: int | None,
    bands: Sequence[str] | None,
) -> Preprocessing:
    """Change the stem where that was asked for, in place; the preprocessing that belongs to it is returned."""
    before = default_preprocessing(adapted)
    if in_channels is not None or bands is not None:
        asked = {"in_channels": in_channels} if bands is None else {"bands": list(bands)}
        info.origin.stem_steps = (*info.origin.stem_steps, asked)
        mix = choose_mix(before.channels, in_channels=in_channels, bands=bands)
        layers = change_stem(adapted, info, mix)
        before_that = [info.origin.stem] if info.origin.stem else []
        info.origin.stem = "; then ".join([*before_that, f"{', '.join(layers)}: {mix.text}"])
        before = mixed_preprocessing(before, mix)
    if preprocessing is not None and preprocessing.num_channels != before.num_channels:
        raise SettingsError(
            f"The preprocessing is for {quantity(preprocessing.num_channels, 'channel')}, the network for "
            f"{before.num_channels}.",
            "one mean and one std for each channel that the network takes",
            f"pass `in_channels={preprocessing.num_channels}` as well, or leave `preprocessing` out",
        )
    return preprocessing or before


def _describe_head(info: ModelInfo, head: Head, classes: Sequence[str] | int, size: tuple[int, int]) -> None:
    info.class_names = None if isinstance(classes, int) else tuple(classes)
    info.output, info.thresholds, info.calibration, info.trust = head.resolved_output, {}, None, None
    before = ("head", "image_size", "include_top", "pooling")
    info.args = {key: value for key, value in info.args.items() if key not in before}
    info.args["num_classes"] = _count(classes)
    if not head.is_plain or head.dropout or head.output not in ("softmax", "segmentation"):
        info.args["head"] = head.to_dict()
    if not head.is_plain:
        info.args["image_size"] = list(size)


def _check_head(info: ModelInfo, head: Head) -> None:
    before = info.args.get("head")
    if head.is_plain and isinstance(before, dict) and not Head(**before).is_plain:
        raise SettingsError(
            "This network already has a head with its own pooling or hidden layers, instead of its plain one.",
            "a head with `pool`",
            "pass `head=rg.Head(pool='avg')`, or build the network anew",
        )


def check_classes(classes: Sequence[str] | int | None, output: str = "softmax") -> None:
    """Raise unless it is a list of different names, or a number, as the output can have them, or None.

    Raises:
        SettingsError: It is something else; the doubles are named.
    """
    if classes is None:
        return
    if isinstance(classes, int) and not isinstance(classes, bool) and classes > 0:
        if output != "softmax":
            check_num_classes(output, tuple(map(str, range(classes))))
        return
    if isinstance(classes, (str, int)) or not all(isinstance(name, str) for name in classes):
        raise SettingsError(
            f"The class list is {classes!r}.",
            "a list of names, or their number",
            "pass for example `classes=['cat', 'dog']`; `rg.build_model(NAME, include_top=False)` has none",
        )
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise SettingsError(
            f"The class list names {', '.join(map(repr, twice))} more than once.",
            "each class has one name and one row of the classifier",
            "remove the duplicates",
        )
    check_num_classes(output, classes)
