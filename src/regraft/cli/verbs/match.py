"""`regraft match`: what of a weights file goes where in a network; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import ArgumentsOption, arguments_of
from regraft.cli.say import say

if TYPE_CHECKING:
    from torch import nn

    from regraft.weights.report import MatchReport

__all__ = [
    "AdjustOption",
    "ClassesOption",
    "FileArgument",
    "FromOption",
    "InOrderOption",
    "MapOption",
    "ModelOption",
    "SkipOption",
    "match",
    "matching",
    "network_arguments",
]

FileArgument = Annotated[Path, typer.Argument(help="Weights file of any format.", show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", help="Name of the network.", show_default=False)]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", help="Layers or tensors to leave out, e.g. `fc8` or `head.*`.")
]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="NAME_IN_MODEL=NAME_IN_FILE: pair layers by hand.")]
FromOption = Annotated[
    str | None,
    typer.Option("--from", help="Which set of tensors, or which prefix of names, where a file holds several networks."),
]
InOrderOption = Annotated[
    bool, typer.Option("--in-order", help="Treat the order in a PyTorch file as the order of execution.")
]
AdjustOption = Annotated[
    bool, typer.Option("--adjust", help="Set the network's strides and epsilons to those the file was made with.")
]
ClassesOption = Annotated[int | None, typer.Option("--num-classes", min=1, help="Number of classes of the network.")]


def match(
    file: FileArgument,
    model: ModelOption,
    skip: SkipOption = None,
    mapping: MapOption = None,
    key: FromOption = None,
    in_order: InOrderOption = False,
    adjust: AdjustOption = False,
    num_classes: ClassesOption = None,
    arguments: ArgumentsOption = None,
    require: Annotated[str, typer.Option("--require", help="What must be filled: backbone, all or any.")] = "backbone",
    check: Annotated[
        str | None, typer.Option("--check", help="IMAGE=LOGITS.npy: the original network's output for an image.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of lines of each kind.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Show which tensor of a file goes where in a network, by which rule, with which axis steps.

    Ends with exit code 4 when the backbone is not filled, or anything is ambiguous. With --check, the output for an
    image settles what the file leaves open, and is compared at the end.
    """
    from regraft.errors import SettingsError
    from regraft.weights.file import read_weights

    if require not in ("backbone", "all", "any"):
        raise SettingsError(f"--require is {require!r}.", "backbone, all or any")
    options, named = matching(mapping, in_order=in_order), network_arguments(num_classes, arguments)
    weights = read_weights(file, key=key)  # before torch is imported: mistakes are reported at once

    from regraft.conversion import match_file

    _, network, report = match_file(weights, model, skip=skip or (), match=options, **named)
    if check is None:
        _show(report, limit, as_json=as_json)
        report.require(require, adjust=adjust)
        return
    from regraft.models.graft.check import read_reference, settle

    reference = read_reference(check, network)
    if report.ambiguous:
        report = settle(weights, network, report, reference, adjust=adjust, skip=tuple(skip or ()), **options)
        say("the reference output settles what the file leaves open", err=True)
    _show(report, limit, as_json=as_json)
    _compare(network, report.require(require, adjust=adjust, checked=True), check, adjust=adjust)


def _show(report: MatchReport, limit: int, *, as_json: bool) -> None:
    from regraft.commit import as_json as to_json

    if as_json:
        typer.echo(to_json(report.to_dict(), indent=2))
    else:
        say(report.render(limit=limit))


def _compare(network: nn.Module, report: MatchReport, check: str, *, adjust: bool) -> None:
    """Fill the network and hold it against the reference.

    Raises:
        WeightsError: It gives something else.
    """
    from regraft.errors import WeightsError
    from regraft.models.graft.check import TOLERANCE, deviation, read_reference
    from regraft.models.graft.graft import graft

    off = deviation(graft(network, report, require=None, adjust=adjust), read_reference(check, network))
    say(f"check: the output deviates from the reference by {off:.2g} of its largest value", err=True)
    if off > TOLERANCE:
        raise WeightsError(
            f"The filled network gives another output than the reference: {off:.2g} of its largest value.",
            f"at most {TOLERANCE:g}",
            "check the image's preprocessing; then look at the WARNING lines of the report (strides, epsilon), and try "
            "the network's other forms (`--model keras_NAME`)",
        )


def matching(mapping: list[str] | None, *, in_order: bool) -> dict[str, Any]:
    """Return the options that say how a file is matched, as `match_weights` takes them; none that was not given."""
    pairs = _pairs(mapping)
    return {**({"map": pairs} if pairs else {}), **({"in_order": True} if in_order else {})}


def network_arguments(num_classes: int | None, arguments: list[str] | None) -> dict[str, Any]:
    """Return the options that say which network it is, as `build_model` takes them."""
    return {**({} if num_classes is None else {"classes": num_classes}), **arguments_of(arguments)}


def _pairs(mapping: list[str] | None) -> dict[str, str]:
    """Return `--map a=b` options as a mapping.

    Raises:
        SettingsError: One without `=`.
    """
    from regraft.errors import SettingsError

    wrong = [pair for pair in mapping or () if not all(pair.partition("="))]
    if wrong:
        raise SettingsError(
            f"--map {wrong[0]!r} is not a pair.",
            "NAME_IN_MODEL=NAME_IN_FILE",
            "for example `--map classifier.weight=fc.weight`",
        )
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in mapping or ()}
