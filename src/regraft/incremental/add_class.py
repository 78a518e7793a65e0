"""`add_class`: a run and images of new classes in; a run with old and new classes out, and nothing was trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft import commit
from regraft.compute.numerics import Numerics
from regraft.data.dataset import DataSet, Split
from regraft.data.open import open_undivided
from regraft.evaluation.seen import contents_record, stored_contents
from regraft.incremental.calibrate import temperature_of
from regraft.incremental.collect import Progress, exact, finished_run, statistics_of
from regraft.incremental.discriminant import Discriminant, solve
from regraft.incremental.features import FeatureProgram, classifier_of, network_key
from regraft.incremental.new_images import NewImages, new_images
from regraft.incremental.statistics import Statistics, merged, places
from regraft.incremental.stored import write_statistics
from regraft.models.describe.info import info_of
from regraft.models.store.folder import load_model, load_probes, write_model
from regraft.models.surgery.surgery import adapt
from regraft.run.folder import RunFolder, create_run, require_new
from regraft.run.invocation import command_line
from regraft.run.order import require_run_first
from regraft.settings.head import Head
from regraft.summary import Summary
from regraft.training.checkpoint.records import environment, recipe_text
from regraft.visible import visible
from regraft.wording import quantity

__all__ = ["Addition", "add_class"]


@dataclass(frozen=True, repr=False)
class Addition(Summary):
    """What `add_class` made.

    Attributes:
        run: The new run's folder.
        images: How many images were added to each class that has new ones, by name.
        new_classes: Those of them that the old run did not know.
        strength: The shrinkage of the classifier's covariance, as a share of the mean scatter of a feature.
        temperature: What its scores are divided by before the softmax.
        notes: What was left out, a line each.
    """

    run: RunFolder
    images: dict[str, int]
    new_classes: tuple[str, ...]
    strength: float
    temperature: float
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """Return the folder and the number of images of each class."""
        return {"run": str(self.run.path), "images": self.images, "new_classes": self.new_classes}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        rest = {"strength": self.strength, "temperature": self.temperature, "notes": list(self.notes)}
        return {"run": str(self.run.path), "images": self.images, "new_classes": list(self.new_classes), **rest}

    @property
    def told_images(self) -> str:
        """The number of images of each class, as text."""
        return ", ".join(
            f"{name} ({'new, ' if name in self.new_classes else ''}{quantity(num, 'image')})"
            for name, num in self.images.items()
        )

    def __str__(self) -> str:
        added = self.told_images
        solved = f"shrinkage {self.strength:.3g}, temperature {self.temperature:.3g}"
        return "\n".join([f"{self.run.path}: {added}", solved, *self.notes])


def add_class(
    run: RunFolder | str | Path,
    photos: str | Path,
    *,
    out: str | Path | None = None,
    labels: str | Path | None = None,
    names: str | Path | None = None,
    numerics: Numerics | None = None,
    progress: Progress = lambda done, total: None,
) -> Addition:
    """Add classes to a finished run, without its images and without training; the run itself stays as it was.

    The network's features stay, and one linear layer is solved for all classes from sums over the features: it is the
    one that all images together would give. Images of a class that the run has are added to that class.

    Args:
        run: The folder of a finished run that gives each image one class.
        photos: Images of the new classes, any source that `open_data` takes; of one with splits the training split.
        out: The new run's folder; None makes `runs/<run>-<n>`.
        labels: As for `open_data`.
        names: As for `open_data`.
        numerics: Device, layout and threads; None chooses for this machine. The features are in fp32.
        progress: Called with (images done, images in all).

    Raises:
        SettingsError: The run has not finished; or its model does not give each image one class by a linear layer; or
            `out` exists.
        DataError: No new image can be read; or the run keeps no statistics, and its images are gone.
        StorageError: Records are damaged, or the disk is full.
    """
    if not isinstance(run, RunFolder):
        require_run_first("add-class", run, [photos])
    run = finished_run(run)
    if out is not None:
        require_new(out)
    model = load_model(run.path)
    program = FeatureProgram(model, exact(numerics))
    data = open_undivided(photos, labels=labels, names=names)
    old = statistics_of(run, model, program, progress)
    added = new_images(run, data, program, progress)
    whole = merged(old, added.statistics)
    classifier = solve(whole)
    temperature = temperature_of(classifier, whole.sample)
    known = set(old.class_names)
    counts = dict(zip(added.statistics.class_names, added.statistics.counts.tolist(), strict=True))
    target = create_run(out, run.path.resolve().name)
    addition = Addition(
        target,
        counts,
        tuple(name for name in counts if name not in known),
        classifier.strength,
        temperature,
        (*data.warnings, *added.notes),
    )
    with ExitStack() as unfinished:
        unfinished.callback(commit.remove, target.path)
        with target.locked():
            widened = _with_classes(model, whole.class_names, classifier, temperature)
            _write(run, addition, added, whole, widened)
        unfinished.pop_all()
    return addition


def _with_classes(model: nn.Module, names: Sequence[str], classifier: Discriminant, temperature: float) -> nn.Module:
    """Return the network with the classifier that was solved, in evaluation mode."""
    head = Head(**{**info_of(model).args.get("head", {}), "output": "softmax"})
    wider = adapt(model, classes=list(names), head=head, keep_rows=False).eval()
    info = info_of(wider)
    info.calibration = info.trust = None  # they are of the classifier before; this one has its own temperature
    layer = classifier_of(wider)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(classifier.weight / temperature))
        layer.bias.copy_(torch.from_numpy(classifier.bias / temperature))
    return wider


def _write(run: RunFolder, addition: Addition, added: NewImages, statistics: Statistics, model: nn.Module) -> None:
    """Write the new run; recipe.yaml comes last: a folder with it is a run."""
    target = addition.run
    images = load_probes(run.path)["images"]
    with torch.no_grad():
        logits = model(images)
    facts = {
        "classes added to": run.path.name,
        "images added": ", ".join(f"{name} {num}" for name, num in addition.images.items()),
        "classifier": f"linear discriminant in closed form, shrinkage {addition.strength:.3g}, not trained",
        "temperature": f"{addition.temperature:.3g}",
    }
    write_model(target.model, model, probes={"images": images, "logits": logits}, facts=facts)
    write_statistics(target.statistics, statistics, network_key(model))
    commit.write_json(target.splits, _splits(run, added, statistics.class_names))
    commit.write_json(target.classes, list(statistics.class_names))
    commit.write_json(target.environment, environment())
    commit.write_text(target.command, command_line() + "\n")
    record = {**addition.to_dict(), "run": str(run.path.resolve())}
    before = (run.read(run.additions) or {}).get("additions", [])
    commit.write_json(target.additions, {"additions": [*before, record]})
    commit.write_json(target.status, {"state": "finished", "message": f"classes added to {run.path.name}"})
    recipe = run.settings()
    recipe["head"] = {**recipe["head"], "output": "softmax"} if recipe["head"].get("output") else recipe["head"]
    commit.write_text(target.recipe, _comment(run, addition) + recipe_text(recipe))


def _comment(run: RunFolder, addition: Addition) -> str:
    """Return lines above the settings that say whose they are, and what was added since."""
    lines = (
        f"images were added to the run {run.path.name}, without training: {addition.told_images}",
        f"the classifier was solved anew; the settings below are those of {run.path.name}, and train it alone",
    )
    return "".join(f"# {visible(line)}\n" for line in lines)


def _splits(run: RunFolder, added: NewImages, class_names: Sequence[str]) -> dict[str, Any]:
    """Return splits.json: that of the run, with the new images in its training split."""
    record = run.read(run.splits)
    data = DataSet.from_dict(record)
    among, new = places(data.class_names, class_names), places(added.statistics.class_names, class_names)
    splits = {name: replace(split, labels=among[split.labels]) for name, split in data.splits.items()}
    train = splits["train"]
    splits["train"] = Split([*train.paths, *added.split.paths], np.concatenate([train.labels, new[added.split.labels]]))
    whole = replace(data, class_names=tuple(class_names), splits=splits).to_dict()
    if "contents" not in record:
        return whole
    contents = stored_contents(record["contents"])
    return {**whole, "contents": contents_record({**contents, "train": [*contents["train"], *added.digests]})}
