"""The statistics of a run: those that it keeps, or those of its images where they still are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.data.dataset import DataSet
from regraft.errors import DataError, SettingsError, StorageError
from regraft.evaluation.seen import content_digests, stored_contents
from regraft.incremental.features import FeatureProgram, network_key
from regraft.incremental.sample import no_sample, sampled
from regraft.incremental.statistics import Statistics, collected, places
from regraft.incremental.stored import read_statistics, write_statistics
from regraft.models.describe.info import info_of
from regraft.models.store.folder import load_model
from regraft.run.folder import RunFolder, open_run
from regraft.run.invocation import typed_path
from regraft.wording import quantity

__all__ = ["Progress", "exact", "finished_run", "keep_statistics", "keys_of", "statistics_of"]

Progress = Callable[[int, int], None]
_KEY_BYTES = 8
_log = logging.getLogger("regraft")


def keep_statistics(
    run: RunFolder | str | Path,
    *,
    numerics: Numerics | None = None,
    progress: Progress = lambda done, total: None,
) -> RunFolder:
    """Store the statistics of a run's training images, so that classes can be added when the images are gone.

    It takes one pass of the training and validation images through the delivered network. A run that has them is left
    as it is.

    Args:
        run: The folder of a finished run.
        numerics: Device, layout and threads; None chooses for this machine. The features are in fp32.
        progress: Called with (images done, images in all).

    Raises:
        SettingsError: There is no finished run; or its model does not give each image one class by a linear layer.
        DataError: The run's images are not there any more.
        StorageError: Its records are damaged, or the disk is full.
    """
    run = finished_run(run)
    model = load_model(run.path)
    program = FeatureProgram(model, exact(numerics))
    statistics_of(run, model, program, progress)
    return run


def finished_run(run: RunFolder | str | Path) -> RunFolder:
    """Return the folder of a run that has finished.

    Raises:
        SettingsError: There is none, or it has not.
    """
    run = run if isinstance(run, RunFolder) else open_run(run)
    if not run.is_finished:
        raise SettingsError(
            f"The run {str(run.path)!r} has not finished, and classes are added to the network that a run delivers.",
            "a finished run",
            f"`regraft resume {typed_path(run.path)}` to finish it",
        )
    return run


def statistics_of(run: RunFolder, model: nn.Module, program: FeatureProgram, progress: Progress) -> Statistics:
    """Return the statistics that the run keeps; where it keeps none, compute them and store them there.

    Raises:
        DataError: None are kept, and the images are gone.
        StorageError: What is kept is damaged, or of another network.
    """
    key, names = network_key(model), info_of(model).class_names or ()
    if run.statistics.exists() or run.statistics.is_symlink():
        found = read_statistics(run.statistics, key)
        if found.class_names != tuple(names) or found.num_features != program.num_features:
            raise StorageError(
                f"{str(run.statistics)!r} has other classes than the model beside it.",
                "the statistics that regraft wrote for this model",
                "take the file away: they are computed again where the run's images are still there",
            )
        return found
    with run.locked():
        found = _computed(run, names, program, progress)
        write_statistics(run.statistics, found, key)
    _log.info("statistics of %s kept in %s", quantity(found.num_images, "training image"), run.statistics)
    return found


def keys_of(digests: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Return a number for each content, by which it is drawn into a sample."""
    return np.array([int.from_bytes(digest[:_KEY_BYTES], "big") for digest in digests], dtype=np.uint64)


def exact(numerics: Numerics | None) -> Numerics:
    """Return fp32 on the same device: sums of features that were computed at different times must agree."""
    chosen = numerics or choose_numerics()
    return choose_numerics(chosen.device, "fp32", chosen.threads)


def _computed(run: RunFolder, names: Sequence[str], program: FeatureProgram, progress: Progress) -> Statistics:
    """Return the statistics of the training images, with a sample of the validation images."""
    record = run.read(run.splits)
    data = DataSet.from_dict(record)
    contents = stored_contents(record["contents"]) if "contents" in record else {}
    among = places(data.class_names, names)
    total = len(data.train) + len(data.val)
    features, labels, _ = _split_features(data, "train", contents, program, lambda n, _: progress(n, total))
    _require_images(run, data, features, len(names), among[labels])
    train = collected(names, features, among[labels], no_sample(program.num_features))
    before = len(data.train)
    others, of_val, digests = _split_features(data, "val", contents, program, lambda n, _: progress(before + n, total))
    sample = sampled(others, among[of_val], keys_of(digests), len(names), counted=False)
    return Statistics(train.class_names, train.counts, train.sums, train.products, sample)


def _split_features(
    data: DataSet, split: str, contents: Mapping[str, Sequence[bytes]], program: FeatureProgram, progress: Progress
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[bytes]]:
    """Return the features, the labels and the contents of a split's images that are what they were."""
    paths, digests = list(data.splits[split].paths), content_digests(data.splits[split].paths)
    known = contents.get(split, ())
    if len(known) == len(paths):
        digests = [digest if digest == was else b"" for digest, was in zip(digests, known, strict=True)]
    there = [row for row, digest in enumerate(digests) if digest]
    found = program([paths[row] for row in there], progress)
    rows = np.array(there, dtype=np.int64)[found.rows]
    missing = len(paths) - len(rows)
    if missing and len(rows):
        _log.warning("warning: %s of the %s split cannot be read, or changed", quantity(missing, "image"), split)
    labels = data.splits[split].labels[rows].astype(np.int64)
    return found.values, labels, [digests[row] for row in rows.tolist()]


def _require_images(
    run: RunFolder,
    data: DataSet,
    features: npt.NDArray[np.float32],
    num_classes: int,
    labels: npt.NDArray[np.int64],
) -> None:
    """Raise DataError where a class has no image left."""
    counts = np.bincount(labels, minlength=num_classes)
    if len(features) and counts.all():
        return
    lost = "none of its training images is" if not len(features) else "classes without any image are"
    raise DataError(
        f"The run {str(run.path)!r} keeps no statistics of its features, and {lost} where they were: {data.root!r}.",
        f"{run.statistics.name}, or the images that the run was trained on",
        f"put the images back; `regraft add-class {typed_path(run.path)}` stores the statistics while they are there",
    )
