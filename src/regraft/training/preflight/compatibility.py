"""Whether model, data and plan belong together, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from regraft.data.dataset import DataSet
from regraft.data.decode.decode import decode_or_reason
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import DataError, SettingsError, WeightsError, nearest
from regraft.evaluation.metrics.measure import undefined_measures
from regraft.models.describe.info import info_of
from regraft.models.describe.outputs import OUTPUTS, monitors, output_of
from regraft.models.graft.unfilled import unfilled_layers, was_given_weights
from regraft.plan.make import Plan
from regraft.plan.monitors import watched
from regraft.settings.monitor import DEFAULT_MONITOR
from regraft.settings.stage import Stage
from regraft.training.limits.lone_image import require_company
from regraft.training.limits.stage_sizes import require_room
from regraft.wording import quantity

__all__ = ["check_bands", "check_filled", "check_fit", "undefined_notes"]

_FEW = 8  # images that are read to see whether they have the network's bands


def check_fit(model: nn.Module, data: DataSet, plan: Plan, monitor: str, batch_size: int) -> None:
    """Raise where training cannot mean what was asked for.

    Raises:
        SettingsError: No class names, an output that the labels are not made for, images too small for the network, a
            measure that is not taken, a batch of one image where batch norms cannot take its statistics.
        DataError: Other classes than the model's.
    """
    info = info_of(model)
    if info.class_names is None or info.preprocessing is None:
        raise SettingsError(
            "The model has no class names or no preprocessing.",
            "training needs to know the class of each output row",
            "pass the model through `rg.adapt(model, classes=data.class_names)` first",
        )
    if tuple(info.class_names) != tuple(data.class_names):
        missing = sorted(set(data.class_names) - set(info.class_names))
        extra = sorted(set(info.class_names) - set(data.class_names))
        raise DataError(
            f"The model's classes are not those of {data.root!r}.",
            "the same names in the same order",
            "pass `classes=data.class_names` to `rg.adapt`",
            details=[f"only in the data: {missing}", f"only in the model: {extra}"],
        )
    check_bands(info.preprocessing, data.train.paths, plan.stages)
    _check_output(output_of(model), data)
    require_room(model, plan.stages)
    _check_monitors(model, data, plan, monitor)
    require_company(model, plan.stages, len(data.train), batch_size)


def check_bands(preprocessing: Preprocessing, paths: Sequence[str], stages: Iterable[Stage]) -> None:
    """Raise where a network takes other bands than images have: the first few are read.

    Raises:
        SettingsError: None of them has these bands; or a stage changes colours, which they do not have.
    """
    bands = preprocessing.pixels.bands
    first = list(paths[:_FEW]) if bands else []
    reasons = [reason for path in first if isinstance(reason := decode_or_reason(path, preprocessing.pixels), str)]
    if first and len(reasons) == len(first):
        raise SettingsError(
            f"The network takes {len(bands)} bands ({', '.join(bands)}), and no image was found that has them.",
            "PNG, WebP or TIFF files with a transparency (R, G, B, A), or TIFF files with that many bands of 8 bits",
            "name the bands that the images have (`--set model.bands=[R,G,B,A]`), or leave in_channels and bands out "
            "to train on photos",
            details=[f"{path} {reason}" for path, reason in zip(first[:3], reasons, strict=False)],
        )
    coloured = [stage.name for stage in stages if stage.augment and (stage.augment.saturation or stage.augment.hue)]
    if preprocessing.pixels.num_channels != 3 and coloured:
        raise SettingsError(
            f"Saturation or hue is to change in images of {len(bands)} bands, in stage {coloured[0]!r}.",
            "both need three channels: red, green, blue",
            "set saturation and hue to 0",
        )


def check_filled(model: nn.Module, plan: Plan) -> list[str]:
    """Raise where a part is kept frozen that weights were meant to fill and did not; a sentence where none were asked.

    A network that was built without weights, or layers that were left out on request, may be frozen as they are: that
    is worth a warning. Layers that an earlier stage has trained are as good as filled.

    Raises:
        WeightsError: A match left layers empty that a stage keeps frozen; it names them.
    """
    warnings, trained = [], set[str]()
    for stage, trainable in zip(plan, plan.trainable, strict=True):
        trained |= set(trainable)
        info = info_of(model)
        frozen = [n for n, _ in model.named_parameters() if n not in trained and not info.is_head(n)]
        empty = unfilled_layers(model, frozen)
        lacking = [layer for layer in empty if was_given_weights(model, layer)]
        if lacking:
            raise _unfilled(stage, lacking)
        if empty:
            warnings.append(
                f"stage {stage.name!r} keeps {_listed(empty)} frozen with random weights, which nothing has filled; "
                "load weights (`model.weights`, `rg.graft`), or train these layers too"
            )
            break
    return warnings


def _unfilled(stage: Stage, layers: Sequence[str]) -> WeightsError:
    return WeightsError(
        f"Stage {stage.name!r} keeps layers frozen that the weights did not fill: {_listed(layers)}.",
        "frozen layers are never learnt, so they need values from a file",
        "choose the architecture that the file was made for (`regraft match FILE --model NAME`), or train these layers "
        "in this stage or before it",
    )


def _listed(layers: Sequence[str]) -> str:
    more = f" and {quantity(len(layers) - _FEW, 'more layer')}" if len(layers) > _FEW else ""
    return ", ".join(layers[:_FEW]) + more


def undefined_notes(model: nn.Module, data: DataSet) -> list[str]:
    """Return a sentence for each metric that is undefined on the validation images."""
    found = undefined_measures(output_of(model), data.val.labels, data.class_names)
    return [f"val_{name} is not defined, and left empty: in validation {reason}" for name, reason in found.items()]


def _check_output(output: str, data: DataSet) -> None:
    if data.segmentation != (output == "segmentation"):
        raise _mask_mismatch(output, data)
    if data.multilabel == (output == "multilabel"):
        return
    if data.multilabel:
        raise SettingsError(
            f"The images of {data.root!r} have any number of labels, and the head gives one class "
            f"({OUTPUTS[output].logits_name}).",
            "a head with a sigmoid for each label",
            "leave `head.output` out, or set it to multilabel (`rg.adapt(..., head=rg.Head(output='multilabel'))`)",
        )
    raise SettingsError(
        f"The images of {data.root!r} have one class each, and the head is a multilabel one.",
        "a head that gives one class",
        "leave `head.output` out, or set it to softmax or, with two classes, binary (`rg.adapt(..., head=rg.Head())`)",
    )


def _mask_mismatch(output: str, data: DataSet) -> SettingsError:
    if data.segmentation:
        return SettingsError(
            f"The images of {data.root!r} have masks, and the network gives one answer for a whole image "
            f"({OUTPUTS[output].logits_name}).",
            "a network for segmentation",
            "set `model: {name: unet, args: {encoder: ...}}` (`rg.build_model('unet', encoder=...)`)",
        )
    return SettingsError(
        f"The images of {data.root!r} have no masks, and the network names the class of every pixel.",
        "a mask for each image, as in images/ and masks/",
        "open data with masks, or choose a network that classifies whole images",
    )


def _check_monitors(model: nn.Module, data: DataSet, plan: Plan, monitor: str) -> None:
    known = monitors(output_of(model), len(data.class_names))
    if monitor not in known:
        near = nearest(monitor, known)
        raise SettingsError(
            f"The metric {monitor!r} is not recorded at the end of an epoch of a {output_of(model)} head"
            + (f"; did you mean {near}?" if near else "."),
            "one of: " + ", ".join(known),
            "" if near else f"`monitor: {DEFAULT_MONITOR}`",
        )
    undefined = undefined_measures(output_of(model), data.val.labels, data.class_names)
    used = {"the run": monitor} | {f"{rule} of stage {s.name!r}": name for s in plan for rule, name in watched(s)}
    blind = [f"{who} watches {name}: {undefined[name[4:]]}" for who, name in used.items() if name[4:] in undefined]
    if blind:
        raise SettingsError(
            "A metric is watched that these validation images cannot give.",
            "images of both kinds in the validation split",
            f"set `monitor: {DEFAULT_MONITOR}`, or draw other splits (`--seed`)",
            details=blind,
        )
