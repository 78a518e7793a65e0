"""`regraft convert`: a weights file of any format, written anew: .safetensors, a model folder, or back to Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.match import (
    AdjustOption,
    ClassesOption,
    FileArgument,
    FromOption,
    MapOption,
    ModelOption,
    SkipOption,
    matched,
)
from regraft.cli.options import ArgumentsOption

if TYPE_CHECKING:
    from torch import nn

    from regraft.weights.file import WeightFile
    from regraft.weights.report import MatchReport

__all__ = ["convert"]


def convert(
    file: FileArgument,
    model: ModelOption,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="NAME.safetensors, NAME.h5, NAME.weights.h5, or a model folder.", show_default=False
        ),
    ],
    skip: SkipOption = None,
    mapping: MapOption = None,
    key: FromOption = None,
    adjust: AdjustOption = False,
    num_classes: ClassesOption = None,
    arguments: ArgumentsOption = None,
) -> None:
    """Write the weights of a file in timm's names (.safetensors, or a model folder), or in Keras's (.h5, .weights.h5).

    A weights file holds only tensors that the file fills; a model folder needs all of them.
    """
    from regraft.errors import StorageError

    if out.exists() or out.is_symlink():
        raise StorageError(
            f"There is something at {str(out)!r} already.",
            "A new name was expected: nothing is overwritten.",
            "Choose another -o, or remove it.",
        )
    weights, network, report = matched(file, model, skip, mapping, key, num_classes, arguments)
    is_file = out.suffix in (".safetensors", ".h5", ".hdf5")
    if is_file:
        report.require("backbone", adjust=adjust)
    else:
        report.require("all")  # a folder is built anew by name, without what --adjust changes
        _require_filled(network, report)
    from regraft.models.graft import graft

    graft(network, report, adjust=adjust)
    filled = [match.target for match in report.matched]
    if out.suffix == ".safetensors":
        count = _write_safetensors(out, network, filled)
    elif is_file:
        count = _write_keras(out, network, filled)
    else:
        count = _write_folder(out, network, weights)
    _say(out, count, network, report)


def _require_filled(network: nn.Module, report: MatchReport) -> None:
    """A model folder predicts, so none of its tensors may be random, not even one that was skipped on request."""
    from regraft.errors import WeightsError

    filled = {match.target for match in report.matched}
    empty = [name for name in network.state_dict() if name not in filled]
    if empty:
        raise WeightsError(
            f"A model folder of {report.model} cannot be written: {len(empty)} of its tensors would be random.",
            "Weights for the whole network were expected.",
            "Write a .safetensors file, which holds only what is filled, or leave --skip out.",
            details=empty[:20],
        )


def _say(out: Path, count: str, network: nn.Module, report: MatchReport) -> None:
    empty = len(network.state_dict()) - len(report.matched)
    typer.echo(f"{out}: {count}")
    if empty:
        typer.echo(f"not written: {empty} tensors of {report.model} that the file does not fill")
    for finding in report.findings:
        if finding.serious:
            typer.echo(f"not in the file, to be set in the network: {finding.text}")
    if report.unexpected or report.dropped:
        typer.echo(f"left out: {len(report.unexpected) + len(report.dropped)} tensors of {report.file}")


def _write_safetensors(out: Path, network: nn.Module, filled: list[str]) -> str:
    from safetensors.torch import save

    from regraft import commit

    state = network.state_dict()
    tensors = {name: state[name].contiguous() for name in filled}
    commit.write_bytes(out, save(tensors, metadata={"format": "pt"}))
    return f"{len(tensors)} tensors in timm's names"


def _write_keras(out: Path, network: nn.Module, filled: list[str]) -> str:
    from regraft.models.keras_tensors import keras_tensors
    from regraft.weights.writers import keras_h5, keras_v3

    tensors = keras_tensors(network, set(filled))
    if out.name.endswith(".weights.h5"):
        keras_v3.write(out, tensors)
        return f"{len(tensors)} tensors for Keras 3 (by class and number, names as attributes)"
    keras_h5.write(out, tensors)
    return f"{len(tensors)} tensors in Keras's names (legacy HDF5)"


def _write_folder(out: Path, network: nn.Module, weights: WeightFile) -> str:
    import torch

    from regraft.models.folder import write_model
    from regraft.models.info import info_of, set_info
    from regraft.models.surgery import default_preprocessing

    info = info_of(network)
    preprocessing = default_preprocessing(network)
    images = torch.rand((2, 3, *preprocessing.pixels.size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        logits = network.eval()(images)
    names = weights.class_names
    if names is None or len(set(names)) != logits.shape[1]:
        names = tuple(map(str, range(logits.shape[1])))
        typer.echo(f"class names: the file has none for its {len(names)} classes; written as 0 to {len(names) - 1}")
    info.class_names, info.preprocessing = names, preprocessing.to_dict()
    info.args = {**info.args, "num_classes": len(names)}
    facts: dict[str, Any] = {"converted from": f"{weights.path.name} ({weights.format} {weights.producer})"}
    config = write_model(out, set_info(network, info), probes={"images": images, "logits": logits}, facts=facts)
    alone = "timm can load it by itself" if config["regraft"]["timm_loadable"] else "for regraft alone"
    return f"a model folder for {len(names)} classes ({alone})"
