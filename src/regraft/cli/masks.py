"""`regraft predict` with a network for segmentation: a mask for each input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from regraft import commit
from regraft.cli.destination import TABLES, next_folder, output_folder
from regraft.cli.effects import say_unused, tell_rounding
from regraft.cli.say import say
from regraft.cli.stdin import lines_of_stdin
from regraft.run.file_suffix import file_suffix
from regraft.run.terminal import forgiving
from regraft.visible import one_line

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from regraft.data.decode.memory import MemoryImage
    from regraft.evaluation.results.mask import MaskPrediction
    from regraft.models.segment.tiles import TTA

__all__ = [
    "MaskOptions",
    "PredictsMasks",
    "listed",
    "names_pixels",
    "refuse_options",
    "run_predictor",
    "write_masks",
]

_NUM_CLASSES = 4  # named in a line


@dataclass(frozen=True)
class MaskOptions:
    """What is asked of masks; `out` is None for the next free folder below `predictions/`."""

    out: str | None
    overlay: bool
    tta: str | None
    tile: int | None
    overlap: int | None

    def of_pixels(self) -> dict[str, object]:
        """Return the options that only a network for segmentation reads, by name."""
        return {f"--{name}": value for name, value in self.__dict__.items() if name != "out"}


def names_pixels(run: Path) -> bool:
    """Return whether the model of a run or of a model folder segments images; an unreadable one counts as not."""
    from regraft.errors import RegraftError
    from regraft.models.store.unfinished import stored_config

    try:
        return bool(stored_config(run)["regraft"].get("output") == "segmentation")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RegraftError):
        return False


def refuse_options(asked: Mapping[str, object], why: str) -> None:
    """Raise SettingsError where options were given that this model does not read."""
    from regraft.errors import SettingsError

    given = [name for name, value in asked.items() if value not in (None, False)]
    if given:
        raise SettingsError(
            f"{' and '.join(given)} was given, and {why}.", "options that the model reads", "leave it out"
        )


def listed(inputs: Sequence[str]) -> list[str]:
    """Return the image files that the inputs name; what is left out is said on stderr."""
    from regraft.data.inputs import list_named

    paths, ignored = list_named(inputs)
    for reason, count in ignored.items():
        say(f"left out: {count} x {reason}", err=True)
    return paths


class PredictsMasks(Protocol):
    """Looks at images and gives a mask of each."""

    palette: npt.NDArray[np.uint8]

    def predict(self, paths: Iterable[str | MemoryImage]) -> Iterator[MaskPrediction]:
        """Yield one prediction for each image."""


def run_predictor(
    run: Path, options: MaskOptions, computing: tuple[str, str, int | None], checkpoint: str | None
) -> PredictsMasks:
    """Return the network of a run or a model folder, ready to predict masks.

    Args:
        run: Its path.
        options: What is asked of the masks.
        computing: Device, precision, threads.
        checkpoint: Of a run, another network than the chosen one.
    """
    from regraft.compute.numerics import choose_numerics
    from regraft.evaluation.masks import MaskPredictor
    from regraft.machine.heap import keep_freed_memory
    from regraft.models.store.folder import load_model

    keep_freed_memory()
    model, numerics = load_model(run, checkpoint=checkpoint), choose_numerics(*computing)
    tell_rounding(run, model, numerics, checkpoint)
    tta = cast("TTA | None", options.tta)
    return MaskPredictor(model, numerics, tile=options.tile, overlap=options.overlap, tta=tta)


def write_masks(
    run: Path, inputs: Sequence[str], options: MaskOptions, predictor: Callable[[], PredictsMasks], *, as_json: bool
) -> tuple[int, int]:
    """Write the masks, and a line for each: where its mask is, and the largest classes in it.

    Args:
        run: A run's folder, a model folder, or an exported file.
        inputs: Images, folders and patterns, or - for paths on stdin.
        options: What is asked of the masks.
        predictor: Loads its network; called when all else is checked.
        as_json: One JSON object a line.

    Returns:
        How many inputs there were, and how many of them could not be read.
    """
    from regraft.evaluation.mask_files import MaskFolder

    if options.tile is None:
        say_unused({"--overlap": options.overlap}, "there are no tiles without --tile")
    paths: Iterable[str] = lines_of_stdin() if inputs == ["-"] else listed(inputs)
    root = _folder(run, inputs, options.out)
    below = Path(inputs[0]) if len(inputs) == 1 else None
    try:
        loaded = predictor()
        places = MaskFolder(root, below, loaded.palette, overlay=options.overlay)
        if isinstance(paths, list):
            places.require_new(paths)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        sys.stdout = forgiving(sys.stdout)  # the masks are the result: they are written whoever reads the lines
        num = num_errors = 0
        for prediction in loaded.predict(paths):
            num += 1
            num_errors += prediction.error is not None
            target = None if prediction.mask is None else str(places.write(prediction.path, prediction.mask))
            sys.stdout.write(_json(prediction, target) if as_json else _text(prediction, target))
    finally:
        if options.out is None:
            with suppress(OSError):  # where nothing was written
                root.rmdir()
    return num, num_errors


def _folder(run: Path, inputs: Sequence[str], out: str | None) -> Path:
    """Return the output folder of the masks.

    Raises:
        SettingsError: `--out` names a file.
        StorageError: The folder cannot be made.
    """
    from regraft.errors import SettingsError

    if out is None:
        return next_folder(run, inputs)
    if file_suffix(out, TABLES):
        raise SettingsError(
            f"--out is {out!r}, and a network for segmentation writes a mask of each image.",
            "a folder",
            "`--out FOLDER`; `--json` prints a table",
        )
    return output_folder(Path(out))


def _json(prediction: MaskPrediction, target: str | None) -> str:
    return commit.as_json({**prediction.to_dict(), "mask": target}) + "\n"


def _text(prediction: MaskPrediction, target: str | None) -> str:
    path = one_line(prediction.path)
    if prediction.error is not None:
        return f"{path}\terror: {one_line(prediction.error)}\n"
    largest = sorted(prediction.shares.items(), key=lambda item: -item[1])[:_NUM_CLASSES]
    shares = "|".join(f"{one_line(name)} {share:.1%}" for name, share in largest if share)
    return f"{path}\t{one_line(target or '')}\t{shares}\n"
