"""What can be exported, and what to say before anything is loaded. Needs no torch."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from regraft import commit
from regraft.errors import SettingsError, did_you_mean
from regraft.exports.running.openvino_engine import OPENVINO_EXTRA
from regraft.exports.running.session import EXTRA
from regraft.models.store.find import find_model_folder
from regraft.models.store.unfinished import best_epoch, named_epoch
from regraft.run.folds_folder import fold_runs
from regraft.run.invocation import typed_path

__all__ = ["FORMATS", "beside", "is_of", "is_page", "require_exportable"]

FORMATS: Mapping[str, str] = {"onnx": ".onnx", "html": ".html", "openvino": ".xml", "torch": ".pt2", "mlflow": ""}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_WEIGHTS = ".bin"  # of OpenVINO, beside NAME.xml


def is_page(out: str | Path) -> bool:
    """Return whether a file of this name is a page, which is whole by itself."""
    return is_of(out, "html")


def beside(out: Path) -> tuple[Path, ...]:
    """Return the names of what is written beside a file: its script and its card; nothing beside a page or a folder.

    A .pt2 file has a card alone: what it takes was resized before.
    """
    if is_page(out) or is_of(out, "mlflow"):
        return ()
    return (out.with_suffix(".md"),) if is_of(out, "torch") else (out.with_suffix(".py"), out.with_suffix(".md"))


def is_of(out: str | Path, name: str) -> bool:
    """Return whether a file of this name has a format of this name; without a suffix it is a folder of MLflow's."""
    return Path(out).suffix.lower() == FORMATS[name]


def require_exportable(
    run: str | Path,
    out: str | Path,
    to: str | None,
    checkpoint: str | None,
    *,
    new: bool = True,
    runtime: str | Path | None = None,
) -> None:
    """Raise where an export cannot be written, whatever the network is.

    Args:
        run: What is exported.
        out: The file.
        to: Its format; None takes it from its suffix.
        checkpoint: Of a run, another network than the one it has chosen.
        new: Whether it has to be new, with what lies beside it.
        runtime: What a page was told to carry.

    Raises:
        SettingsError: There is no model, or the run has not finished, and no checkpoint of it was named; there is no
            such format, or `out` has another one's suffix; packages are missing; or a runtime is given to a format
            without one.
        StorageError: There is something of these names.
    """
    _require_network(run, checkpoint)
    _require_format(out, to)
    if runtime is not None and not is_page(out):
        raise SettingsError(
            f"A runtime was given ({str(runtime)!r}), and only a page carries one.", "", "leave it out, or `--to html`"
        )
    others = ("openvino",) if is_of(out, "openvino") else ()
    missing = [name for name in (*_NEEDED, *others) if importlib.util.find_spec(name) is None]
    if missing:
        extra = OPENVINO_EXTRA if missing == ["openvino"] else EXTRA
        raise SettingsError(f"Exporting takes {', '.join(missing)}, not installed here.", "", extra)
    weights = [Path(out).with_suffix(_WEIGHTS)] if others else []
    for path in (Path(out), *weights, *beside(Path(out))) if new else ():
        commit.require_free(path)


def _require_network(run: str | Path, checkpoint: str | None) -> None:
    """Raise where there is no network to export, or only one of a run that has not finished."""
    for path in fold_runs(run) or [Path(run)]:
        if checkpoint is not None:
            named_epoch(path, checkpoint)
            continue
        epoch = best_epoch(path)
        if epoch is not None:
            raise SettingsError(
                f"The run {str(path)!r} has not finished: its best epoch so far is {epoch.told}.",
                "a finished run",
                f"`regraft resume {typed_path(path)}`; or export what there is, with `--checkpoint last`",
            )
        find_model_folder(path)


def _require_format(out: str | Path, to: str | None) -> None:
    formats = ", ".join(FORMATS)
    if to is not None and to not in FORMATS:
        raise SettingsError(f"There is no format {to!r} to export to{did_you_mean(to, list(FORMATS))}", formats, "")
    suffix, wanted = Path(out).suffix.lower(), [FORMATS[to]] if to else [one for one in FORMATS.values() if one]
    if suffix not in wanted:
        raise SettingsError(
            f"The output {str(out)!r} does not have the suffix of an export.",
            " or ".join(f"NAME{one}" for one in wanted),
            f"`-o {typed_path(_free(Path(out).with_suffix(wanted[0])))}`",
        )


def _free(path: Path) -> Path:
    """Return a path whose file can be written with all that lies beside it: this one, or one with a number."""
    names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return next(name for name in names if not any(map(os.path.lexists, (name, *beside(name)))))
