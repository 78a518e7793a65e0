"""The images of a run: decoded, held against those that it began with, and listed in its splits.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from regraft import commit
from regraft.data.cache.cache import CacheMode, PixelCache
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.decode_all import decode_all
from regraft.data.leaks import with_leaks
from regraft.errors import DataError
from regraft.evaluation.seen import contents_record
from regraft.models.describe.info import preprocessing_of
from regraft.run.folder import RunFolder
from regraft.training.checkpoint.stop import StopFlag
from regraft.training.engine import Engine
from regraft.training.loop.checkpoints import stopped
from regraft.training.loop.sinks import Sinks
from regraft.training.preflight.compatibility import undefined_notes
from regraft.training.progress.phases import DECODING
from regraft.wording import quantity

__all__ = ["DECODE_WORK", "decode_rows", "list_rows", "require_same_rows"]

DECODE_WORK = 0.2  # of one pass of an image through the network


def decode_rows(
    run: RunFolder,
    data: DataSet,
    model: nn.Module,
    engine: Engine,
    sinks: Sinks,
    stop: StopFlag,
    *,
    cache: CacheMode,
) -> tuple[DataSet, dict[str, PixelCache]]:
    """Return the rows that can be read, without the test split, and their pixels. Writes nothing to the run folder."""
    without_test = replace(data, splits={name: split for name, split in data.splits.items() if name != "test"})
    seen = 0

    def on_progress(done: int, of: int) -> None:
        nonlocal seen
        if stop.requested and engine.num_processes == 1:  # several stop together, at the first step
            raise stopped(run, stop)
        sinks.advance(DECODE_WORK * (done - seen), f"decoding {done}/{of} images")
        seen = done

    sinks.enter(DECODING)
    return decode_all(
        without_test,
        preprocessing_of(model).pixels,
        cache=cache,
        threads=engine.numerics.threads,
        progress=on_progress,
        say=sinks.line,
        team=engine,
    )


def require_same_rows(run: RunFolder, data: DataSet, decoded: DataSet) -> None:
    """Compare the readable rows with those that a resumed run was trained on.

    Args:
        run: The run folder.
        data: The rows before they were decoded.
        decoded: What `decode_rows` gave.

    Raises:
        DataError: Images cannot be read any more.
    """
    if not run.splits.exists() or decoded.quarantined == data.quarantined:
        return
    changed = sorted({item.path for item in decoded.quarantined} - {item.path for item in data.quarantined})
    raise DataError(
        f"{quantity(len(changed), 'image')} that this run was trained on cannot be read any more; the first: "
        f"{changed[0]!r}.",
        "a resumed run needs the same images, so that it ends in the same result",
        "put the files back, or train again into a new folder",
    )


def list_rows(
    run: RunFolder,
    data: DataSet,
    decoded: DataSet,
    model: nn.Module,
    pixels: Mapping[str, PixelCache],
    sinks: Sinks,
    *,
    resume: bool,
) -> None:
    """Write splits.json where the run has none yet, or where the images were moved; say what was found in them.

    Raises:
        StorageError: It cannot be written.
    """
    complete = replace(decoded, splits={**data.splits, **decoded.splits})
    contents = contents_record({name: part.digests for name, part in pixels.items()})
    if resume and run.splits.exists():
        if run.read(run.splits)["source"] != complete.to_dict()["source"]:
            commit.write_json(run.splits, {**complete.to_dict(), "contents": contents})
        return
    complete = with_leaks(complete, {name: (part.paths, part.digests) for name, part in pixels.items()})
    commit.write_json(run.splits, {**complete.to_dict(), "contents": contents})
    for finding in check(complete):
        if finding.level == "warning":
            sinks.warn(f"warning: {finding.text}")
    total = sum(len(split) for split in data.splits.values())
    counts = ", ".join(f"{name} {len(split)}" for name, split in complete.splits.items())
    sinks.line(f"data: {quantity(total, 'image')}, {quantity(len(data.class_names), 'class', 'classes')}, {counts}")
    for note in undefined_notes(model, complete):
        sinks.line(f"note: {note}")
