"""`regraft predict` with a network for segmentation: a mask for each input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from regraft import commit
from regraft.cli.lines import lines_of_stdin, one_line

if TYPE_CHECKING:
    from regraft.evaluate.masks import MaskPrediction
    from regraft.models.segment.tiles import TTA

__all__ = ["MaskOptions", "names_pixels", "refuse_options", "write_masks"]

_NUM_CLASSES = 4  # named in a line
_FOLDER = Path("masks")


@dataclass(frozen=True)
class MaskOptions:
    """What is asked of masks; `out` is None for `masks/`."""

    out: Path | None
    overlay: bool
    tta: str | None
    tile: int | None
    overlap: int | None

    def given(self) -> dict[str, object]:
        """The options by name."""
        return {f"--{name}": value for name, value in self.__dict__.items()}


def names_pixels(run: Path) -> bool:
    """Whether the model of a run, or of a model folder, is a network for segmentation; what cannot be read is none."""
    for folder in (run / "model", run):
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return bool(config["regraft"].get("output") == "segmentation")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return False


def refuse_options(asked: Mapping[str, object], why: str) -> None:
    """Raise SettingsError where options were given that this model does not read."""
    from regraft.errors import SettingsError

    given = [name for name, value in asked.items() if value not in (None, False)]
    if given:
        raise SettingsError(
            f"{' and '.join(given)} was given, and {why}.", "Expected options that the model reads.", "Leave it out."
        )


def write_masks(
    run: Path, inputs: str, options: MaskOptions, computing: tuple[str, str, int | None], *, as_json: bool
) -> int:
    """Write the masks, and a line for each: where its mask is, and the largest classes in it.

    Args:
        run: A run's folder, or a model folder.
        inputs: An image, a folder, or - for paths on stdin.
        options: What is asked of the masks.
        computing: Device, precision, threads.
        as_json: One JSON object a line.

    Returns:
        How many inputs could not be read.
    """
    from regraft.data.inputs import list_inputs
    from regraft.evaluate.mask_files import MaskFolder
    from regraft.evaluate.masks import MaskPredictor
    from regraft.models.folder import load_model
    from regraft.models.numerics import choose_numerics, keep_freed_memory

    paths: Iterable[str]
    if inputs == "-":
        paths = lines_of_stdin()
    else:
        paths, ignored = list_inputs(inputs)
        for reason, count in ignored.items():
            print(f"left out: {count} x {reason}", file=sys.stderr)
    keep_freed_memory()
    tta = cast("TTA | None", options.tta)
    predictor = MaskPredictor(
        load_model(run), choose_numerics(*computing), tile=options.tile, overlap=options.overlap, tta=tta
    )
    places = MaskFolder(
        options.out or _FOLDER, None if inputs == "-" else Path(inputs), predictor.palette, overlay=options.overlay
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    num_errors = 0
    for prediction in predictor.predict(paths):
        num_errors += prediction.error is not None
        target = None if prediction.mask is None else str(places.write(prediction.path, prediction.mask))
        sys.stdout.write(_json(prediction, target) if as_json else _text(prediction, target))
    return num_errors


def _json(prediction: MaskPrediction, target: str | None) -> str:
    return commit.as_json({**prediction.to_dict(), "mask": target}) + "\n"


def _text(prediction: MaskPrediction, target: str | None) -> str:
    path = one_line(prediction.path)
    if prediction.error is not None:
        return f"{path}\terror: {one_line(prediction.error)}\n"
    largest = sorted(prediction.shares.items(), key=lambda item: -item[1])[:_NUM_CLASSES]
    shares = "|".join(f"{one_line(name)} {share:.1%}" for name, share in largest if share)
    return f"{path}\t{one_line(target or '')}\t{shares}\n"
