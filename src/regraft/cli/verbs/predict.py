"""`regraft predict`: one row for each input, in input order."""

from __future__ import annotations

import csv
import functools
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from regraft import commit
from regraft.cli.destination import TABLES, output_folder, written_table
from regraft.cli.effects import tell_rounding
from regraft.cli.masks import (
    MaskOptions,
    PredictsMasks,
    listed,
    names_pixels,
    refuse_options,
    run_predictor,
    write_masks,
)
from regraft.cli.options import CheckpointOption, DeviceOption, PrecisionOption, ThreadsOption, ViewsOption
from regraft.cli.say import say
from regraft.cli.sealed import class_predictor, mask_predictor, opened_session
from regraft.cli.stdin import lines_of_stdin
from regraft.run.file_suffix import file_suffix
from regraft.visible import cell, one_line

if TYPE_CHECKING:
    from regraft.data.cache.stream import DecodedStream
    from regraft.data.decode.memory import MemoryImage
    from regraft.evaluation.predict import Predictor
    from regraft.evaluation.results.prediction import Prediction
    from regraft.exports.running.predictor import SealedPredictor

__all__ = ["predict"]

_UNKNOWN = "unknown"
_BATCH = 16  # files: what a CPU computes at once


def predict(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or an export (NAME.onnx, NAME.xml).", show_default=False)
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(help="Images, folders, patterns such as 'photos/*.jpg'; or - for paths on stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a column for each class.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, max=1, help="Binary and multi-label: overrides the stored thresholds."),
    ] = None,
    sets: Annotated[
        float | None,
        typer.Option(
            "--sets", help="Also give a set of classes that holds the true one in this share of the images, e.g. 0.9."
        ),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Predict `unknown` for images that are unlike all that the model knows.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="NAME.csv, NAME.jsonl or a folder; default: stdout, for masks predictions/<run>-<input>-<n>",
            show_default=False,
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Segmentation: also write the images with the masks drawn on them.")
    ] = False,
    tta: ViewsOption = None,
    tile: Annotated[
        int | None,
        typer.Option("--tile", min=32, help="Segmentation: predict at full resolution, in tiles of this side."),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option("--overlap", min=0, help="Segmentation: overlap of tiles in pixels; default: a quarter."),
    ] = None,
    checkpoint: CheckpointOption = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="torch; onnx: an export of the run, made and proven once; auto: such an export where there is one "
            "and few images are named.",
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Predict the class, or all labels, of images, by name; an image that cannot be read is a row with an error.

    A network for segmentation writes a PNG mask of each image, at the image's size. Nothing is overwritten.
    """
    from regraft.errors import SettingsError
    from regraft.run.order import require_run_first

    if as_json and as_csv:
        raise SettingsError("--json and --csv were both given.", "one of them", "")
    if "-" in inputs and len(inputs) > 1:
        raise SettingsError("'-' cannot be combined with other inputs.", "it reads paths from stdin", "")
    require_run_first("predict", run, inputs)
    of_masks = MaskOptions(out, overlay=overlay, tta=tta, tile=tile, overlap=overlap)
    views = {"--tta": tta, "--tile": tile, "--overlap": overlap}
    sealed = opened_session(run, inputs, engine, threads, ({"--checkpoint": checkpoint, **views}, device, precision))
    if names_pixels(run) if sealed is None else sealed.seal.output == "segmentation":
        given = {"--csv": as_csv, "--threshold": threshold, "--sets": sets, "--reject": reject}
        refuse_options(given, "a network for segmentation writes masks")
        computing = (device, precision, threads)
        loading: Callable[[], PredictsMasks] = functools.partial(run_predictor, run, of_masks, computing, checkpoint)
        if sealed is not None:
            loading = functools.partial(mask_predictor, sealed)
        _tell_errors(*write_masks(run, inputs, of_masks, loading, as_json=as_json))
        return
    refuse_options({**of_masks.of_pixels(), "--tta": None}, "the model classifies whole images")
    table = None if out is None else _table(out, as_json=as_json, as_csv=as_csv)
    with ExitStack() as stack:
        predictor: Predictor | SealedPredictor
        judged: dict[str, Any] = {"threshold": threshold, "sets": sets, "reject": reject}
        if sealed is not None:
            named = class_predictor(sealed, threads, **judged)
            predictor, rows = named, named.predict(lines_of_stdin() if inputs == ["-"] else listed(inputs))
        else:
            paths = _begun(run, checkpoint, inputs, threads, stack)
            of_run = _predictor(run, checkpoint, (device, precision, threads), {**judged, "tta": tta})
            predictor, rows = of_run, of_run.predict(paths)
        predictions = _Counted(rows)
        beside = [*(["candidates"] if sets is not None else []), *(["typicality"] if reject else [])]
        write_csv = functools.partial(_write_csv, beside=beside)
        if table is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
            write = _write_json if as_json else write_csv if as_csv else _write_text
            write(sys.stdout, predictions, predictor.class_names)
        else:
            with written_table(table) as stream:
                write = _write_json if table.suffix.lower() == ".jsonl" else write_csv
                write(stream, predictions, predictor.class_names)
            say(f"{table}: {predictions.num} {'row' if predictions.num == 1 else 'rows'}")
    _tell_errors(predictions.num, predictions.num_errors)


class _Counted:
    """Predictions, counted as they are read."""

    def __init__(self, predictions: Iterator[Prediction]) -> None:
        self._predictions = predictions
        self.num = self.num_errors = 0

    def __iter__(self) -> Iterator[Prediction]:
        for prediction in self._predictions:
            self.num += 1
            self.num_errors += prediction.error is not None
            yield prediction


def _table(out: str, *, as_json: bool, as_csv: bool) -> Path:
    """Return the table that is to be written.

    Raises:
        SettingsError: The options contradict its name.
        StorageError: It is there already, or its folder cannot be written to.
    """
    from regraft.errors import SettingsError

    path = Path(out)
    suffix = file_suffix(out, TABLES)
    if (as_json and suffix == ".csv") or (as_csv and suffix == ".jsonl"):
        raise SettingsError(
            f"{'--json' if as_json else '--csv'} was given, and --out is {out!r}.",
            "one form of the table",
            "leave the option out: the name decides the format",
        )
    if not suffix:
        path = path / ("predictions.jsonl" if as_json else "predictions.csv")
    commit.require_free(path)
    output_folder(path.parent)
    return path


def _tell_errors(num: int, num_errors: int) -> None:
    """Say how many inputs could not be read.

    Raises:
        DataError: None could.
    """
    if num_errors and num_errors == num:
        from regraft.errors import DataError

        raise DataError(
            "The input could not be read; its row says why."
            if num == 1
            else f"None of the {num} inputs could be read; each is a row with an error that says why.",
            "",
            "check the paths and the files",
        )
    if num_errors:
        inputs_are = "input" if num_errors == 1 else "inputs"
        say(f"{num_errors} {inputs_are} could not be read; each is a row with an error", err=True)


def _predictor(
    run: Path, checkpoint: str | None, computing: tuple[str, str, int | None], asked: dict[str, Any]
) -> Predictor:
    """Return the run's model, ready to predict."""
    from regraft.compute.numerics import choose_numerics
    from regraft.evaluation.predict import Predictor, scores_for, views_for
    from regraft.machine.heap import keep_freed_memory
    from regraft.models.store.folder import load_model

    keep_freed_memory()
    model, numerics = load_model(run, checkpoint=checkpoint), choose_numerics(*computing)
    tell_rounding(run, model, numerics, checkpoint)
    views = views_for(run, model, numerics, asked["tta"], checkpoint)
    scores = None if asked["sets"] is None else scores_for(run, model, numerics, views)
    return Predictor(model, numerics, **asked | {"tta": views, "scores": scores})


def _begun(
    run: Path, checkpoint: str | None, inputs: Sequence[str], threads: int | None, stack: ExitStack
) -> Iterable[str | MemoryImage] | DecodedStream:
    """Return the inputs: those on stdin as they come, others as a stream that decodes while torch is imported."""
    from regraft.data.cache.stream import DecodedStream
    from regraft.models.store.import_overlap import short_turns, stored_preprocessing

    preprocessing = stored_preprocessing(run, checkpoint)
    if preprocessing is None and checkpoint is None:
        from regraft.models.store.folder import find_model_folder
        from regraft.models.store.unfinished import best_epoch

        if best_epoch(run) is None:
            find_model_folder(run)  # says what is wrong
    if inputs == ["-"]:
        return lines_of_stdin()
    paths = listed(inputs)
    if preprocessing is None:
        return paths
    stream = DecodedStream(paths, preprocessing.pixels, batch_size=_BATCH, threads=threads, far=True)
    stack.callback(stream.close)
    stack.enter_context(short_turns())
    return stream


def _write_json(stream: TextIO, predictions: Iterable[Prediction], class_names: Sequence[str]) -> None:
    for prediction in predictions:
        stream.write(commit.as_json(prediction.to_dict()) + "\n")


def _write_csv(
    stream: TextIO, predictions: Iterable[Prediction], class_names: Sequence[str], beside: Sequence[str] = ()
) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "prediction", "probability", *map(cell, class_names), "error", *beside])
    for prediction in predictions:
        values = [f"{prediction.probabilities[name]:.6f}" if prediction.probabilities else "" for name in class_names]
        probability = "" if prediction.probability is None else f"{prediction.probability:.6f}"
        texts = (prediction.path, prediction.prediction or "", prediction.error or "")
        path, named, error = map(cell, texts)
        typical = "" if prediction.typicality is None else f"{prediction.typicality:.4f}"
        more = {"candidates": cell("|".join(prediction.candidates or ())), "typicality": typical}
        writer.writerow([path, named, probability, *values, error, *(more[name] for name in beside)])


def _write_text(stream: TextIO, predictions: Iterable[Prediction], class_names: Sequence[str]) -> None:
    for prediction in predictions:
        shown = _named(prediction) if prediction.error is None else f"error: {one_line(prediction.error)}"
        stream.write(f"{one_line(prediction.path)}\t{shown}\n")


def _named(prediction: Prediction) -> str:
    """Return the names and their probabilities, in two columns."""
    if prediction.typicality is not None and prediction.prediction == _UNKNOWN and prediction.probability is None:
        return f"{_UNKNOWN}\t(typicality {prediction.typicality:.4f})"
    names = [prediction.prediction or ""] if prediction.labels is None else list(prediction.labels)
    shares = [f"{prediction.probabilities[name]:.4f}" for name in names]
    text = f"{'|'.join(map(one_line, names))}\t{'|'.join(shares)}" if names else "(no label)\t"
    return text if prediction.candidates is None else f"{text}\t{{{', '.join(map(one_line, prediction.candidates))}}}"
