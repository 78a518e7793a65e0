"""`regraft convert`: a weights file of any format, written anew: .safetensors, a model folder, or back to Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.masks import refuse_options
from regraft.cli.options import ArgumentsOption, CheckpointOption
from regraft.cli.say import say
from regraft.cli.verbs.match import (
    AdjustOption,
    ClassesOption,
    FromOption,
    InOrderOption,
    MapOption,
    SkipOption,
    matching,
    network_arguments,
)

__all__ = ["convert"]


def convert(
    file: Annotated[
        Path, typer.Argument(help="Weights file of any format, a run, or a model folder.", show_default=False)
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", help="NAME.safetensors, NAME.h5, NAME.weights.h5, or a model folder.", show_default=False
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the network; not needed for a run.", show_default=False)
    ] = None,
    skip: SkipOption = None,
    mapping: MapOption = None,
    key: FromOption = None,
    in_order: InOrderOption = False,
    adjust: AdjustOption = False,
    num_classes: ClassesOption = None,
    arguments: ArgumentsOption = None,
    checkpoint: CheckpointOption = None,
) -> None:
    """Write the weights of a file in timm's names (.safetensors, or a model folder), or in Keras's (.h5, .weights.h5).

    A weights file holds only tensors that the file fills; a model folder needs all of them.
    """
    from regraft import commit
    from regraft.run.file_suffix import file_suffix
    from regraft.run.folder import holds_model
    from regraft.weights.file import read_weights
    from regraft.weights.writers.suffixes import SUFFIXES

    commit.require_free(Path(out))  # this and what follows is said before torch is imported
    file_suffix(out, SUFFIXES)
    given = {
        "--model": model,
        "--skip": skip,
        "--map": mapping,
        "--from": key,
        "--adjust": adjust,
        "--num-classes": num_classes,
        "--arg": arguments,
        "--in-order": in_order,
    }
    is_model = holds_model(file)
    if is_model:
        refuse_options(given, f"{str(file)!r} is a trained model, which knows its network")
    else:
        refuse_options({"--checkpoint": checkpoint}, f"{str(file)!r} is a weights file, which holds one network")
    options = {**matching(mapping, in_order=in_order), **({"adjust": True} if adjust else {})}
    named = network_arguments(num_classes, arguments)
    read = file if is_model or model is None else read_weights(file, key=key)

    from regraft.conversion import convert as written

    say(str(written(read, out, model=model, skip=skip or (), match=options, checkpoint=checkpoint, **named)))
