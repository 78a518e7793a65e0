"""Surgery, after the graft: classes, head, image size, channels. The original is left as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from regraft.data.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.build import is_buildable
from regraft.models.channels import change_stem, choose_mix, mixed_preprocessing
from regraft.models.head import Head, HeadModule
from regraft.models.info import ModelInfo, info_of, set_info
from regraft.models.outputs import check_num_classes, num_logits
from regraft.models.rows import keep_rows as keep_rows_of
from regraft.models.trace import image_channels, plain, smallest_size

__all__ = ["adapt", "default_preprocessing", "is_channels_last"]


def adapt(
    model: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    head: Head | None = None,
    in_channels: int | None = None,
    bands: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    keep_rows: bool = True,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` with other classes, head, image size or channels; `model` itself stays as it was.

    Args:
        model: A network from `build_model`, usually after `graft`, or any `nn.Module` that classifies images.
        classes: The class names, one for each row of the new classifier, in order; None keeps the head as it is.
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
    old = info_of(model)
    if classes is None and head is not None:
        classes = old.class_names or ()
    head = head or Head(**{**old.args.get("head", {}), "output": old.output})
    if classes is not None:
        _check_classes(classes)
        check_num_classes(head.output, classes)
    adapted, info = copy.deepcopy(model), copy.deepcopy(old)
    info.origin = {key: value for key, value in info.origin.items() if key != "rows"}
    if not is_buildable(info.architecture) or (not _knows_itself(model) and not hasattr(model, "pretrained_cfg")):
        info.args["own_module"] = True
    preprocessing = _with_channels(adapted, info, preprocessing, in_channels, bands)
    if image_size is not None:
        size = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
        preprocessing = replace(preprocessing, pixels=replace(preprocessing.pixels, size=size))
    info.preprocessing = preprocessing.to_dict()
    if classes is not None:
        _check_head(info, head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _replace_head(adapted, info, head, num_logits(head.output, len(classes)), preprocessing)
        _describe_head(info, head, classes, preprocessing.pixels.size)
    set_info(adapted, info)
    if classes is not None:
        rows = keep_rows_of(model, adapted, classes, wanted=keep_rows)
        info.origin["rows"] = rows.to_dict()
        if not rows.added:
            info.origin["new_layers"] = []
    _check_runs(adapted, preprocessing, None if classes is None else num_logits(head.output, len(classes)))
    return adapted


def default_preprocessing(model: nn.Module) -> Preprocessing:
    """What the network's weights were trained with, as far as it says; ImageNet's usual otherwise."""
    info = info_of(model)
    if info.preprocessing is not None:
        return Preprocessing.from_dict(info.preprocessing)
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
        mix = choose_mix(before.channels, in_channels=in_channels, bands=bands)
        layers = change_stem(adapted, info, mix)
        before_that = [info.origin["stem"]] if "stem" in info.origin else []
        info.origin["stem"] = "; then ".join([*before_that, f"{', '.join(layers)}: {mix.text}"])
        before = mixed_preprocessing(before, mix)
    if preprocessing is not None and preprocessing.num_channels != before.num_channels:
        raise SettingsError(
            f"The preprocessing is for {preprocessing.num_channels} channels, the network for {before.num_channels}.",
            "Expected one mean and one std for each channel that the network takes.",
            f"Pass `in_channels={preprocessing.num_channels}` as well, or leave `preprocessing` out.",
        )
    return preprocessing or before


def _describe_head(info: ModelInfo, head: Head, classes: Sequence[str], size: tuple[int, int]) -> None:
    info.class_names = tuple(classes)
    info.output, info.thresholds = head.output, {}
    info.args = {key: value for key, value in info.args.items() if key not in ("head", "image_size")}
    info.args["num_classes"] = len(classes)
    if not head.is_plain or head.dropout or head.output != "softmax":
        info.args["head"] = head.to_dict()
    if not head.is_plain:
        info.args["image_size"] = list(size)


def _check_head(info: ModelInfo, head: Head) -> None:
    before = info.args.get("head")
    if head.is_plain and isinstance(before, dict) and not Head(**before).is_plain:
        raise SettingsError(
            "This network already has a head with its own pooling or hidden layers, in the place of its plain one.",
            "Expected a head that says how it pools.",
            "Pass `head=rg.Head(pool='avg')`, or build the network anew.",
        )


def _check_classes(classes: Sequence[str]) -> None:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise SettingsError(
            f"The class list is {classes!r}.",
            "Expected a list of names.",
            "Pass for example `classes=['cat', 'dog']`.",
        )
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise SettingsError(
            f"The class list names {', '.join(map(repr, twice))} more than once.",
            "Each class has one name and one row of the classifier.",
            "Remove the doubles.",
        )


def _replace_head(model: nn.Module, info: ModelInfo, head: Head, num_rows: int, preprocessing: Preprocessing) -> None:
    if head.is_plain and hasattr(model, "reset_classifier"):
        model.reset_classifier(num_rows)  # type: ignore[operator]
        if head.dropout:
            _set_dropout(model, info, head.dropout)
        classifier = getattr(model, "pretrained_cfg", {}).get("classifier")
        info.origin["new_layers"] = [classifier] if isinstance(classifier, str) else list(info.head)
    elif hasattr(model, "forward_features"):
        _replace_after_features(model, info, head, num_rows, preprocessing)
    else:
        _replace_last_layer(model, info, head, num_rows)


def _set_dropout(model: nn.Module, info: ModelInfo, dropout: float) -> None:
    """timm keeps the classifier's dropout as `drop_rate` (applied in forward) or as a module beside it."""
    model.drop_rate = dropout  # type: ignore[assignment]
    tops = {name.split(".")[0] for name in info.head} | {"head_drop"}
    for top in tops & {name for name, _ in model.named_children()}:
        for module in model.get_submodule(top).modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout


def _replace_after_features(
    model: nn.Module, info: ModelInfo, head: Head, num_rows: int, preprocessing: Preprocessing
) -> None:
    """Put one `HeadModule` in the place of everything that runs after the last feature map."""
    example = _example(model, preprocessing)
    with _telling(model, info.architecture, preprocessing), torch.no_grad():
        features: Tensor = model.forward_features(example)  # type: ignore[operator]
    if features.ndim != 4 or is_channels_last(model, features.shape[1:]):
        raise SettingsError(
            f"{info.architecture!r} ends in features of shape {tuple(features.shape[1:])}, not in a feature map.",
            "A head with its own pooling or hidden layers needs a feature map (channels, height, width).",
            "Leave `head.pool` and `head.hidden` out, or choose a convolutional network.",
        )
    own = [name for name in info.head if isinstance(model.get_submodule(name), HeadModule)]
    after = own or _called_after_features(model, example)
    place = own[0] if own else info.head[-1].split(".")[0] if info.head else after[-1]
    for name in after:
        setattr(model, name, nn.Identity())
    setattr(model, place, HeadModule(head, features.shape[1:], num_rows))
    if hasattr(model, "drop_rate"):
        model.drop_rate = 0.0  # type: ignore[assignment]  # the head module has its own dropout
    info.head = (place,)
    info.origin["new_layers"] = [place]


def is_channels_last(model: nn.Module, shape: Sequence[int]) -> bool:
    """Whether a feature map of this shape (without the batch) has its channels behind height and width, as in Swin."""
    width = getattr(model, "num_features", None)
    return len(shape) == 3 and width == shape[-1] and width != shape[0]


def _called_after_features(model: nn.Module, example: Tensor) -> list[str]:
    """Top-level modules that the network calls after `forward_features`, and those it never calls, in order."""
    called: list[str] = []
    handles = [
        child.register_forward_hook(lambda *_, name=name: called.append(name)) for name, child in model.named_children()
    ]
    with torch.no_grad():
        model.forward_features(example)  # type: ignore[operator]
        in_features = set(called)
        called.clear()
        model(example)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(name for name in called if name not in in_features))


def _replace_last_layer(model: nn.Module, info: ModelInfo, head: Head, num_rows: int) -> None:
    """A user's own module: its last dense layer becomes the new head."""
    kinds = (nn.Linear, HeadModule)
    place = next((name for name in info.head if isinstance(model.get_submodule(name), kinds)), None)
    if place is None or head.pool is not None:
        raise SettingsError(
            f"{info.architecture!r} is a module that regraft does not know"
            + (", so its pooling cannot be replaced." if place else ", and it has no last dense layer to replace."),
            "Expected a module that ends in a dense layer, and a head without `pool`.",
            "Leave `head.pool` out, or build the head into the module and pass it to train without adapt.",
        )
    old = model.get_submodule(place)
    width = old.feature_shape[0] if isinstance(old, HeadModule) else int(old.in_features)  # type: ignore[arg-type]
    plain_layer = head.is_plain and not head.dropout
    new = nn.Linear(width, num_rows) if plain_layer else HeadModule(head, (width,), num_rows)
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    info.origin["new_layers"] = [place]


def _example(model: nn.Module, preprocessing: Preprocessing) -> Tensor:
    parameter = next(model.parameters())
    shape = (2, preprocessing.num_channels, *preprocessing.pixels.size)
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


@contextlib.contextmanager
def _telling(model: nn.Module, architecture: str, preprocessing: Preprocessing) -> Iterator[None]:
    """Turn whatever a network raises on an image into the sentence that helps."""
    size = preprocessing.pixels.size
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "channels" in reason and "to have" in reason:
            raise SettingsError(
                f"{architecture!r} does not take images of {preprocessing.num_channels} channels: {reason}.",
                "Expected as many channels as its first layer takes.",
                f"Pass `in_channels={preprocessing.num_channels}` to `rg.adapt`.",
            ) from error
        smallest = smallest_size(model)
        raise SettingsError(
            f"{architecture!r} cannot take images of {size[0]}x{size[1]} pixels: {reason}.",
            "Expected an image size that leaves at least one pixel at the end of the network"
            + (f"; the smallest is {smallest}x{smallest}." if smallest and smallest > min(size) else "."),
            "Type another `--image-size`; 224 fits nearly every network.",
        ) from error


def _check_runs(model: nn.Module, preprocessing: Preprocessing, num_rows: int | None) -> None:
    model.eval()
    with _telling(model, info_of(model).architecture, preprocessing), torch.no_grad():
        logits = model(_example(model, preprocessing))
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else (type(logits).__name__,)
    if num_rows is not None and shape != (2, num_rows):
        raise SettingsError(
            f"The adapted network gives outputs of shape {shape[1:] or shape}, its head has {num_rows} rows.",
            "Expected one logit for each row of the head.",
            "Build the head into the module and pass it to train without adapt.",
        )
