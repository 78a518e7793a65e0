"""`regraft match`: what of a weights file goes where in a network; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import ArgumentsOption, arguments_of

if TYPE_CHECKING:
    from torch import nn

    from regraft.weights.file import WeightFile
    from regraft.weights.report import MatchReport

__all__ = [
    "AdjustOption",
    "ClassesOption",
    "FileArgument",
    "FromOption",
    "MapOption",
    "ModelOption",
    "SkipOption",
    "match",
    "matched",
]

FileArgument = Annotated[Path, typer.Argument(help="A weights file of any format.", show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", help="The network's name.", show_default=False)]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", help="Layers or tensors to leave out, as in `fc8` or `head.*`.")
]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="NAME_IN_MODEL=NAME_IN_FILE, by hand.")]
FromOption = Annotated[str | None, typer.Option("--from", help="Which set of tensors, where a file holds several.")]
AdjustOption = Annotated[
    bool, typer.Option("--adjust", help="Give the network the strides and epsilons that the file was made with.")
]
ClassesOption = Annotated[int | None, typer.Option("--num-classes", min=1, help="Rows of the network's classifier.")]


def match(
    file: FileArgument,
    model: ModelOption,
    skip: SkipOption = None,
    mapping: MapOption = None,
    key: FromOption = None,
    adjust: AdjustOption = False,
    num_classes: ClassesOption = None,
    arguments: ArgumentsOption = None,
    require: Annotated[str, typer.Option("--require", help="What must be filled: backbone, all or any.")] = "backbone",
    check: Annotated[
        str | None, typer.Option("--check", help="IMAGE=LOGITS.npy: what the original network gives for an image.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Lines of each kind.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Show which tensor of a file goes where in a network, by which rule, with which axis steps.

    Ends with exit code 4 when the backbone is not filled, or anything is ambiguous. With --check, the output for an
    image settles what the file leaves open, and is compared at the end.
    """
    from regraft.commit import as_json as to_json
    from regraft.errors import SettingsError

    if require not in ("backbone", "all", "any"):
        raise SettingsError(f"--require is {require!r}.", "Expected backbone, all or any.", "Correct the option.")
    weights, network, report = matched(file, model, skip, mapping, key, num_classes, arguments)
    if check is None:
        typer.echo(to_json(report.to_dict(), indent=2) if as_json else report.render(limit=limit))
        report.require(require, adjust=adjust)
        return
    from regraft.models.check import read_reference, settle

    reference = read_reference(check, network)
    if report.ambiguous:
        by_hand = _pairs(mapping)
        report = settle(weights, network, report, reference, map=by_hand, adjust=adjust, skip=tuple(skip or ()))
        typer.echo("the reference output settles what the file leaves open", err=True)
    typer.echo(to_json(report.to_dict(), indent=2) if as_json else report.render(limit=limit))
    _compare(network, report.require(require, adjust=adjust), check, adjust=adjust)


def _compare(network: nn.Module, report: MatchReport, check: str, *, adjust: bool) -> None:
    """Fill the network and hold it against the reference.

    Raises:
        WeightsError: It gives something else.
    """
    from regraft.errors import WeightsError
    from regraft.models.check import TOLERANCE, deviation, read_reference
    from regraft.models.graft import graft

    off = deviation(graft(network, report, adjust=adjust), read_reference(check, network))
    typer.echo(f"check: the output deviates from the reference by {off:.2g} of its largest value", err=True)
    if off > TOLERANCE:
        raise WeightsError(
            f"The filled network gives another output than the reference: {off:.2g} of its largest value.",
            f"At most {TOLERANCE:g} was expected.",
            "Check the image's preprocessing; then look at the WARNING lines of the report (strides, epsilon), and try "
            "the network's other forms (`--model keras_NAME`).",
        )


def matched(
    file: Path,
    model: str,
    skip: list[str] | None,
    mapping: list[str] | None,
    key: str | None,
    num_classes: int | None,
    arguments: list[str] | None,
) -> tuple[WeightFile, nn.Module, MatchReport]:
    """The file, the network as it was built, and what of the file goes where in it."""
    by_hand, options = _pairs(mapping), arguments_of(arguments)
    from regraft.weights.file import read_weights

    weights = read_weights(file, key=key)  # before torch is imported: mistakes are told at once

    from regraft.models.build import build_model
    from regraft.models.match import match_weights

    network = build_model(model, classes=num_classes, **options)
    return weights, network, match_weights(weights, network, skip=skip or (), map=by_hand)


def _pairs(mapping: list[str] | None) -> dict[str, str]:
    """`--map a=b` options as a mapping.

    Raises:
        SettingsError: One without `=`.
    """
    from regraft.errors import SettingsError

    wrong = [pair for pair in mapping or () if not all(pair.partition("="))]
    if wrong:
        raise SettingsError(
            f"--map {wrong[0]!r} is not a pair.",
            "Expected NAME_IN_MODEL=NAME_IN_FILE.",
            "Type for example `--map classifier.weight=fc.weight`.",
        )
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in mapping or ()}
