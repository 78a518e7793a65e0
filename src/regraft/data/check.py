"""Sanity checks of a data set before training on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from regraft.data.dataset import DataSet
from regraft.errors import DataError
from regraft.wording import quantity

__all__ = ["Finding", "check", "require_usable"]

_FEW = 5  # examples shown of each kind


@dataclass(frozen=True)
class Finding:
    """One sentence about a data set: an `error` ends the run, a `warning` is shown, a `note` is for the record."""

    level: Literal["error", "warning", "note"]
    text: str


def check(data: DataSet) -> list[Finding]:
    """Return everything found so far about a data set and its quarantine, errors first; nothing is read from the
    disk.
    """
    findings = [*_lost_splits(data), *_lost_pairs(data), *_lost_classes(data)]
    findings += [Finding("warning", text) for text in data.warnings]
    findings += _quarantine(data)
    if data.ignored:
        counts = ", ".join(f"{count} x {reason}" for reason, count in data.ignored.items())
        findings.append(Finding("note", f"Left out: {counts}."))
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def require_usable(data: DataSet) -> None:
    """Require a data set that can be trained on.

    Raises:
        DataError: If a split, or a class in the training split, has no readable image left; all of them named.
    """
    errors = [finding.text for finding in check(data) if finding.level == "error"]
    if not errors:
        return
    reasons = [f"{item.path!r} ({item.split}) {item.reason}." for item in data.quarantined[:_FEW]]
    if len(data.quarantined) > _FEW:
        reasons.append(f"{quantity(len(data.quarantined) - _FEW, 'more file')} cannot be read.")
    if not reasons and not data.segmentation:
        raise DataError(
            f"There are too few images in {data.root!r}.",
            "every split, and every class to train on, has at least one image; a class with a single one is trained on "
            "and never validated",
            "add images to the classes, or divide them yourself: ROOT/train/CLASS and ROOT/val/CLASS",
            details=[*(text.replace(" readable", "") for text in errors), *data.warnings[:_FEW]],
        )
    masks = "keeps images that have a mask of their size, with values of the class table"
    classes = ", and every class to train on, keeps at least one readable image"
    raise DataError(
        f"Too few images of {data.root!r} can be read.",
        f"every split {masks}" if data.segmentation else f"every split{classes}",
        "Correct the masks, or name other ones with `--masks FOLDER`."
        if data.segmentation
        else "Replace the unreadable files, or take the class out of every split.",
        details=[*errors, *reasons],
    )


def _lost_splits(data: DataSet) -> list[Finding]:
    unreadable = {item.split for item in data.quarantined}
    return [
        Finding("error", f"The {name} split has no {'readable ' if name in unreadable else ''}image.")
        for name, split in data.splits.items()
        if not len(split)
    ]


def _lost_pairs(data: DataSet) -> list[Finding]:
    """Return splits of which most images have no usable mask: a whole folder is wrong, not a few files."""
    gone = Counter(item.split for item in data.quarantined if data.segmentation)
    return [
        Finding("error", f"{gone[name]} of {gone[name] + len(split)} {name} images or their masks cannot be used.")
        for name, split in data.splits.items()
        if gone[name] > len(split) > 0
    ]


def _lost_classes(data: DataSet) -> list[Finding]:
    findings = []
    for split in data.splits:
        counts = data.counts(split)
        for name, count in zip(data.class_names, counts.tolist(), strict=True):
            if count == 0 and counts.any() and data.segmentation:
                findings.append(Finding("warning", f"No {split} mask has a pixel of the class {name!r}."))
            elif count == 0 and counts.any():
                level: Literal["error", "warning"] = "error" if split == "train" else "warning"
                findings.append(Finding(level, f"Class {name!r} has no readable image in {split}."))
    return findings


def _quarantine(data: DataSet) -> list[Finding]:
    if not data.quarantined:
        return []
    num, kinds = len(data.quarantined), Counter(item.reason for item in data.quarantined)
    counts = ", ".join(f"{count} x {reason}" for reason, count in kinds.most_common(_FEW))
    return [
        Finding(
            "warning",
            f"{quantity(num, 'file cannot be read and is', 'files cannot be read and are')} left out: {counts}.",
        ),
        *(Finding("note", f"{item.path!r} ({item.split}) {item.reason}.") for item in data.quarantined),
    ]
