"""`regraft predict`: one row for each input, in input order."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft import commit
from regraft.cli.lines import lines_of_stdin, one_line
from regraft.cli.masks import MaskOptions, names_pixels, refuse_options, write_masks
from regraft.cli.options import DeviceOption, PrecisionOption, ThreadsOption

if TYPE_CHECKING:
    from regraft.data.stream import DecodedStream
    from regraft.evaluate.predict import Prediction, Predictor

__all__ = ["predict"]

_BATCH = 16  # files: what a CPU computes at once


def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model folder.", show_default=False)],
    inputs: Annotated[str, typer.Argument(help="An image, a folder, or - for paths on stdin.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a column for each class.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, max=1, help="Binary and multi-label: instead of those in the model."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Segmentation: the folder of the masks; masks/ by default.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Segmentation: images with the colours too.")] = False,
    tta: Annotated[
        str | None, typer.Option("--tta", help="Segmentation: flip, that is also mirrored.", show_default=False)
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option("--tile", min=32, help="Segmentation: the image's own pixels, in tiles of this side."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option("--overlap", min=0, help="Of tiles, in pixels; a quarter by default.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Predict the class, or all labels, of images, by name; an image that cannot be read is a row with an error.

    A network for segmentation writes a PNG mask of each image, at the image's size.
    """
    from regraft.errors import SettingsError

    if as_json and as_csv:
        raise SettingsError("--json and --csv were both given.", "Expected one of them.", "Leave one out.")
    of_masks = MaskOptions(out, overlay=overlay, tta=tta, tile=tile, overlap=overlap)
    if names_pixels(run):
        refuse_options({"--csv": as_csv, "--threshold": threshold}, "a network for segmentation writes masks")
        _tell_errors(write_masks(run, inputs, of_masks, (device, precision, threads), as_json=as_json))
        return
    refuse_options(of_masks.given(), "the model classifies whole images")
    with ExitStack() as stack:
        paths = _begun(run, inputs, threads, stack)

        predictor = _predictor(run, device, precision, threads, threshold)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        write = _write_json if as_json else _write_csv if as_csv else _write_text
        num_errors = write(predictor.predict(paths), predictor.class_names)
    _tell_errors(num_errors)


def _tell_errors(num_errors: int) -> None:
    if num_errors:
        inputs_are = "input" if num_errors == 1 else "inputs"
        print(f"{num_errors} {inputs_are} could not be read; each is a row with an error", file=sys.stderr)


def _predictor(run: Path, device: str, precision: str, threads: int | None, threshold: float | None) -> Predictor:
    """The run's model, ready to predict."""
    from regraft.evaluate.predict import Predictor
    from regraft.models.folder import load_model
    from regraft.models.numerics import choose_numerics, keep_freed_memory

    keep_freed_memory()
    return Predictor(load_model(run), choose_numerics(device, precision, threads), threshold=threshold)


def _begun(run: Path, inputs: str, threads: int | None, stack: ExitStack) -> Iterable[str] | DecodedStream:
    """The inputs: those on stdin as they come, others as a stream that decodes while torch is imported."""
    from regraft.data.inputs import list_inputs
    from regraft.data.stream import DecodedStream
    from regraft.models.early import short_turns, stored_preprocessing

    preprocessing = stored_preprocessing(run)
    if preprocessing is None:
        from regraft.models.folder import find_model_folder

        find_model_folder(run)  # says what is wrong
    paths: Iterable[str] | DecodedStream
    if inputs == "-":
        paths = lines_of_stdin()
    else:
        paths, ignored = list_inputs(inputs)
        for reason, count in ignored.items():
            print(f"left out: {count} x {reason}", file=sys.stderr)
        if preprocessing is not None:
            paths = DecodedStream(paths, preprocessing.pixels, batch_size=_BATCH, threads=threads, far=True)
            stack.callback(paths.close)
            stack.enter_context(short_turns())
    return paths


def _write_json(predictions: Iterator[Prediction], class_names: Sequence[str]) -> int:
    num_errors = 0
    for prediction in predictions:
        num_errors += prediction.error is not None
        sys.stdout.write(commit.as_json(prediction.to_dict()) + "\n")
    return num_errors


def _write_csv(predictions: Iterator[Prediction], class_names: Sequence[str]) -> int:
    num_errors = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "prediction", "probability", *class_names, "error"])
    for prediction in predictions:
        num_errors += prediction.error is not None
        values = [f"{prediction.probabilities[name]:.6f}" if prediction.probabilities else "" for name in class_names]
        probability = "" if prediction.probability is None else f"{prediction.probability:.6f}"
        writer.writerow([prediction.path, prediction.prediction or "", probability, *values, prediction.error or ""])
    return num_errors


def _write_text(predictions: Iterator[Prediction], class_names: Sequence[str]) -> int:
    num_errors = 0
    for prediction in predictions:
        if prediction.error is not None:
            num_errors += 1
            sys.stdout.write(f"{one_line(prediction.path)}\terror: {one_line(prediction.error)}\n")
        else:
            sys.stdout.write(f"{one_line(prediction.path)}\t{_named(prediction)}\n")
    return num_errors


def _named(prediction: Prediction) -> str:
    """The names and their probabilities, in two columns."""
    names = [prediction.prediction or ""] if prediction.labels is None else list(prediction.labels)
    shares = [f"{prediction.probabilities[name]:.4f}" for name in names]
    return f"{'|'.join(map(one_line, names))}\t{'|'.join(shares)}" if names else "(no label)\t"
