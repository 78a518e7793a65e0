"""Whether model, data and plan belong together, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from regraft.data.dataset import DataSet
from regraft.data.decode import decode_or_reason
from regraft.data.preprocess import Preprocessing
from regraft.errors import DataError, SettingsError, nearest
from regraft.evaluate.measure import undefined_measures
from regraft.models.info import info_of
from regraft.models.outputs import OUTPUTS, monitors, output_of
from regraft.plan.make import Plan
from regraft.plan.monitors import watched
from regraft.plan.stages import Stage

__all__ = ["check_bands", "check_fit", "undefined_notes"]

_FEW = 8  # images that are read to see whether they have the network's bands


def check_fit(model: nn.Module, data: DataSet, plan: Plan, monitor: str) -> None:
    """Raise where training cannot mean what was asked for.

    Raises:
        SettingsError: No class names, an output that the labels are not made for, a measure that is not taken.
        DataError: Other classes than the model's.
    """
    info = info_of(model)
    if info.class_names is None or info.preprocessing is None:
        raise SettingsError(
            "The model has no class names or no preprocessing.",
            "Training needs to know the class of each output row.",
            "Pass the model through `rg.adapt(model, classes=data.class_names)` first.",
        )
    if tuple(info.class_names) != tuple(data.class_names):
        missing = sorted(set(data.class_names) - set(info.class_names))
        extra = sorted(set(info.class_names) - set(data.class_names))
        raise DataError(
            f"The model's classes are not those of {data.root!r}.",
            "Expected the same names in the same order.",
            "Pass `classes=data.class_names` to `rg.adapt`.",
            details=[f"only in the data: {missing}", f"only in the model: {extra}"],
        )
    check_bands(Preprocessing.from_dict(info.preprocessing), data.train.paths, plan.stages)
    _check_output(output_of(model), data)
    _check_monitors(model, data, plan, monitor)


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
            "Expected PNG, WebP or TIFF files with a transparency (R, G, B, A), or TIFF files with that many bands of "
            "8 bits.",
            "Name the bands that the images have (`--set model.bands=[R,G,B,A]`), or leave in_channels and bands out "
            "to train on photos.",
            details=[f"{path} {reason}" for path, reason in zip(first[:3], reasons, strict=False)],
        )
    coloured = [stage.name for stage in stages if stage.augment and (stage.augment.saturation or stage.augment.hue)]
    if preprocessing.pixels.num_channels != 3 and coloured:
        raise SettingsError(
            f"Saturation or hue is to change in images of {len(bands)} bands, in stage {coloured[0]!r}.",
            "Both need three channels: red, green, blue.",
            "Set saturation and hue to 0.",
        )


def undefined_notes(model: nn.Module, data: DataSet) -> list[str]:
    """A sentence for each measure that the validation images cannot give."""
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
            "Expected a head with a sigmoid for each label.",
            "Leave `head.output` out, or set it to multilabel (`rg.adapt(..., head=rg.Head(output='multilabel'))`).",
        )
    raise SettingsError(
        f"The images of {data.root!r} have one class each, and the head is a multilabel one.",
        "Expected a head that gives one class.",
        "Leave `head.output` out, or set it to softmax or, with two classes, binary (`rg.adapt(..., head=rg.Head())`).",
    )


def _mask_mismatch(output: str, data: DataSet) -> SettingsError:
    if data.segmentation:
        return SettingsError(
            f"The images of {data.root!r} have masks, and the network gives one answer for a whole image "
            f"({OUTPUTS[output].logits_name}).",
            "Expected a network for segmentation.",
            "Set `model: {name: unet, args: {encoder: ...}}` (`rg.build_model('unet', encoder=...)`).",
        )
    return SettingsError(
        f"The images of {data.root!r} have no masks, and the network names the class of every pixel.",
        "Expected a mask for each image, as in images/ and masks/.",
        "Open data with masks, or choose a network that classifies whole images.",
    )


def _check_monitors(model: nn.Module, data: DataSet, plan: Plan, monitor: str) -> None:
    known = monitors(output_of(model), len(data.class_names))
    if monitor not in known:
        near = nearest(monitor, known)
        raise SettingsError(
            f"The metric {monitor!r} is not recorded at the end of an epoch of a {output_of(model)} head.",
            "Expected one of: " + ", ".join(known) + ".",
            f"Did you mean {near}?" if near else "Set `monitor: val_loss`.",
        )
    undefined = undefined_measures(output_of(model), data.val.labels, data.class_names)
    used = {"the run": monitor} | {f"{rule} of stage {s.name!r}": name for s in plan for rule, name in watched(s)}
    blind = [f"{who} watches {name}: {undefined[name[4:]]}" for who, name in used.items() if name[4:] in undefined]
    if blind:
        raise SettingsError(
            "A metric is watched that these validation images cannot give.",
            "Expected images of both kinds in the validation split.",
            "Set `monitor: val_loss`, or draw other splits (`--seed`).",
            details=blind,
        )
