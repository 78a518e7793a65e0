"""`convert`: weights of any file, or of a run, written as .safetensors, as a model folder, or for Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from regraft import commit
from regraft.errors import SettingsError, WeightsError
from regraft.models.describe.info import info_of, preprocessing_of, set_info
from regraft.models.graft.graft import graft
from regraft.models.graft.keras_tensors import keras_tensors
from regraft.models.graft.match import match_weights
from regraft.models.keras_forms.forms import arguments_for
from regraft.models.store.folder import find_model_folder, load_model, load_probes, write_model
from regraft.models.surgery.surgery import default_preprocessing
from regraft.models.zoo.build import build_model
from regraft.run.file_suffix import file_suffix
from regraft.run.folder import holds_model
from regraft.run.invocation import typed_path
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.report import MatchReport
from regraft.weights.writers.keras import write_keras
from regraft.weights.writers.suffixes import SUFFIXES
from regraft.wording import quantity

__all__ = ["Conversion", "convert", "match_file"]


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote.

    Attributes:
        path: The new file or folder.
        written: What it holds, in a few words.
        notes: What was left out, and what is to be set in the network, a line each.
        report: How the weights were matched; None where a run or a model folder was converted.
    """

    path: Path
    written: str
    notes: tuple[str, ...] = ()
    report: MatchReport | None = None

    def __str__(self) -> str:
        return "\n".join([f"{self.path}: {self.written}", *self.notes])


def convert(
    file: str | Path | WeightFile,
    out: str | Path,
    *,
    model: str | None = None,
    skip: Sequence[str] = (),
    match: Mapping[str, Any] | None = None,
    checkpoint: str | None = None,
    **arguments: Any,
) -> Conversion:
    """Write the weights of a file in timm's names (.safetensors, or a model folder), or in Keras's (.h5, .weights.h5).

    A weights file holds only tensors that the file fills; a model folder needs all of them.

    Args:
        file: A weights file of any format, or what `read_weights` gave; a run folder or a model folder.
        out: NAME.safetensors, NAME.h5, NAME.weights.h5, or a model folder. Nothing is overwritten.
        model: The name of the file's network; a run knows its own.
        skip: Layers or tensors to leave out, as in `match_weights`.
        match: Further arguments of `match_weights` (`map`, `in_order`), `key` as in `read_weights`, and `adjust` as in
            `graft`.
        checkpoint: Of a run folder, another network than the one it has chosen, as for `load_model`.
        **arguments: The arguments of the network, as `build_model` takes them.

    Raises:
        SettingsError: There is no network to name the tensors by, arguments that do not apply, or a suffix that is not
            written.
        WeightsError: The file cannot be read, or does not fill what is to be written.
        StorageError: `out` is there already, or cannot be written.
    """
    target = Path(out)
    commit.require_free(target)
    suffix = file_suffix(out, SUFFIXES)
    if not isinstance(file, WeightFile) and holds_model(Path(file)):
        if model is not None or skip or match or arguments:
            raise SettingsError(
                f"{str(file)!r} is a trained model, which knows its network.",
                "its weights are not matched again",
                "leave out `model`, `skip`, `match` and the network's arguments",
            )
        return _convert_model(Path(file), checkpoint, target, suffix)
    name = str(file.path if isinstance(file, WeightFile) else file)
    if checkpoint is not None:
        raise SettingsError(f"{name!r} is a weights file.", "it has no checkpoints", "leave out `checkpoint`")
    if model is None:
        raise SettingsError(
            f"No network was named for {name!r}.",
            "--model: the weights are written in the names of a network's tensors",
            f"`regraft convert {typed_path(name)} --model NAME -o OUT`; "
            f"`regraft inspect {typed_path(name)}` shows what the file holds",
        )
    options = dict(match or {})
    adjust = bool(options.pop("adjust", False))
    weights, network, report = match_file(file, model, skip=skip, match=options, **arguments)
    if suffix:
        report.require("backbone", adjust=adjust)
    else:
        report.require("all")  # a folder is built anew by name, without what `adjust` changes
        _require_filled(network, report)
    graft(network, report, adjust=adjust)
    filled = [pair.target for pair in report.matched]
    if suffix:
        return Conversion(target, _write_file(target, suffix, network, filled), tuple(_notes(network, report)), report)
    written, names = _write_folder(target, network, weights)
    return Conversion(target, written, (*names, *_notes(network, report)), report)


def match_file(
    file: str | Path | WeightFile,
    model: str,
    *,
    skip: Sequence[str] = (),
    match: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> tuple[WeightFile, nn.Module, MatchReport]:
    """Match a weights file with a network that is built by name, in the form that the file was made for.

    Args:
        file, model, skip, match, arguments: As for `convert`.

    Returns:
        The file; the network, with random weights; and what of the file goes where in it.
    """
    options = dict(match or {})
    key = options.pop("key", None)
    weights = file if isinstance(file, WeightFile) else read_weights(file, key=key)
    network = build_model(model, **{**arguments_for(model, weights.layers), **arguments})
    return weights, network, match_weights(weights, network, skip=skip, **options)


def _convert_model(path: Path, checkpoint: str | None, target: Path, suffix: str) -> Conversion:
    """Write the weights of a run's model, which are complete and have their names."""
    folder = find_model_folder(path)
    if not suffix and checkpoint is None:
        raise SettingsError(
            f"{str(folder)!r} is a model folder already.",
            "-o with a weights file: NAME.safetensors, NAME.h5 or NAME.weights.h5",
            f"copy the folder: `cp -r {typed_path(folder)} {typed_path(target)}`",
        )
    network = load_model(path, checkpoint=checkpoint)
    if not suffix:
        return Conversion(target, _write_checkpoint(target, network, path))
    return Conversion(target, _write_file(target, suffix, network, list(network.state_dict())))


def _write_file(out: Path, suffix: str, network: nn.Module, filled: list[str]) -> str:
    return _write_safetensors(out, network, filled) if suffix == ".safetensors" else _write_keras(out, network, filled)


def _require_filled(network: nn.Module, report: MatchReport) -> None:
    """Require that no tensor is random, not even one that was dropped on request: a model folder predicts."""
    filled = {match.target for match in report.matched}
    empty = [name for name in network.state_dict() if name not in filled]
    if empty:
        raise WeightsError(
            f"A model folder of {report.model} cannot be written: {len(empty)} of its tensors would be random.",
            "weights for the whole network",
            "write a .safetensors file, which holds only what is filled, or skip nothing",
            details=empty[:20],
        )


def _notes(network: nn.Module, report: MatchReport) -> Iterator[str]:
    empty = len(network.state_dict()) - len(report.matched)
    if empty:
        yield f"not written: {quantity(empty, 'tensor')} of {report.model} that the file does not fill"
    yield from (
        f"not in the file, to be set in the network: {found.text}" for found in report.findings if found.serious
    )
    if report.unexpected or report.dropped:
        yield f"left out: {quantity(len(report.unexpected) + len(report.dropped), 'tensor')} of {report.file}"


def _write_safetensors(out: Path, network: nn.Module, filled: list[str]) -> str:
    state = network.state_dict()
    tensors = {name: state[name].contiguous() for name in filled}
    commit.write_bytes(out, save(tensors, metadata={"format": "pt"}))
    return f"{quantity(len(tensors), 'tensor')} in timm's names"


def _write_keras(out: Path, network: nn.Module, filled: list[str]) -> str:
    tensors = keras_tensors(network, set(filled))
    write_keras(out, tensors)
    is_v3 = out.name.endswith(".weights.h5")
    layout = "for Keras 3 (by class and number, names as attributes)" if is_v3 else "in Keras's names (legacy HDF5)"
    return f"{quantity(len(tensors), 'tensor')} {layout}"


def _write_checkpoint(out: Path, network: nn.Module, run: Path) -> str:
    """Write the model folder of another network that a run has trained, with the images of the run's probes."""
    size = preprocessing_of(network).pixels.size
    images = torch.nn.functional.interpolate(load_probes(run)["images"], size, mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = network(images)
    config = write_model(out, network, probes={"images": images, "logits": logits}, facts={"trained in": run.name})
    return f"a model folder for {quantity(config['num_classes'], 'class', 'classes')}"


def _write_folder(out: Path, network: nn.Module, weights: WeightFile) -> tuple[str, list[str]]:
    """Write a model folder that predicts; returns what it holds, and what is to be said of its class names."""
    info = info_of(network)
    preprocessing = default_preprocessing(network)
    images = torch.rand((2, 3, *preprocessing.pixels.size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        logits = network.eval()(images)
    names, notes = weights.class_names, []
    if names is None or len(set(names)) != logits.shape[1]:
        names = tuple(map(str, range(logits.shape[1])))
        counted = quantity(len(names), "class", "classes")
        notes = [f"class names: the file has none for its {counted}; written as 0 to {len(names) - 1}"]
    info.class_names, info.preprocessing = names, preprocessing
    info.args = {**info.args, "num_classes": len(names)}
    facts: dict[str, Any] = {"converted from": f"{weights.path.name} ({weights.format} {weights.producer})"}
    config = write_model(out, set_info(network, info), probes={"images": images, "logits": logits}, facts=facts)
    alone = "timm can load it by itself" if config["regraft"]["timm_loadable"] else "for regraft alone"
    return f"a model folder for {quantity(len(names), 'class', 'classes')} ({alone})", notes
