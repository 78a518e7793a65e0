"""`regraft match`: what of a weights file goes where in a network; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["FileArgument", "FromOption", "MapOption", "ModelOption", "RequireOption", "SkipOption", "match", "pairs"]

FileArgument = Annotated[Path, typer.Argument(help="A weights file of any format.", show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", help="The network's name.", show_default=False)]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", help="Layers or tensors to leave out, as in `fc8` or `head.*`.")
]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="NAME_IN_MODEL=NAME_IN_FILE, by hand.")]
FromOption = Annotated[str | None, typer.Option("--from", help="Which set of tensors, where a file holds several.")]
RequireOption = Annotated[str, typer.Option("--require", help="What must be filled: backbone, all or any.")]


def match(
    file: FileArgument,
    model: ModelOption,
    skip: SkipOption = None,
    mapping: MapOption = None,
    key: FromOption = None,
    require: RequireOption = "backbone",
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Show which tensor of a file goes where in a network, by which rule, with which axis steps.

    Ends with exit code 4 when the backbone is not filled, or anything is ambiguous.
    """
    from regraft.models.build import build_model
    from regraft.models.match import match_weights
    from regraft.weights.file import read_weights

    by_hand = pairs(mapping)
    report = match_weights(read_weights(file, key=key), build_model(model), skip=skip or (), map=by_hand)
    typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if as_json else report.render())
    report.require(require)


def pairs(mapping: list[str] | None) -> dict[str, str]:
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
