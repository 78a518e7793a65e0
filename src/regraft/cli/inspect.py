"""`regraft inspect`: what a run, a model, a folder of photos or a name pattern holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import (
    ArgumentsOption,
    ClassTableOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    arguments_of,
    ignored_items,
)

if TYPE_CHECKING:
    from regraft.data.class_table import ClassTable
    from regraft.run.folder import RunFolder

__all__ = ["inspect"]


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            help="A run, a model folder, photos (a folder, a list, a table), a weights file, a model name or pattern.",
            show_default=False,
        ),
    ],
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=1, help="For output shapes.")] = None,
    arguments: ArgumentsOption = None,
    key: Annotated[str | None, typer.Option("--from", help="Which set of tensors of a weights file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what something is: a run's state, a network's layers, a data set's defects, what a weights file holds."""
    path = Path(target)
    if (path / "recipe.yaml").is_file():
        facts = _run(path)
    elif (path / "config.json").is_file():
        facts = _model_folder(path)
    elif _is_list(path):
        facts = _photos(path, names=names)
    elif _is_weights(path):
        _weights(path, key, as_json=as_json)
        return
    elif path.is_dir():
        said = {"masks": masks, "class_table": class_table, "ignore": ignored_items(ignore)}
        facts = _photos(path, labels=labels, names=names, **said)
    else:
        _require_name(path, target)
        _network(target, image_size, arguments_of(arguments), as_json=as_json)
        return
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, value in facts.items():
        if isinstance(value, list):
            typer.echo(f"{name}:")
            for item in value:
                typer.echo(f"  {item}")
        else:
            typer.echo(f"{name}: {value}")


def _require_name(path: Path, target: str) -> None:
    """Raise when the target is a file, or looks like a path to something that is not there."""
    from regraft.errors import DataError, SettingsError

    if path.exists():
        raise SettingsError(
            f"{target!r} is a file.",
            "Expected a run, a model folder, a folder of photos, or the name of a network.",
            "Type the folder's name, or `regraft predict RUN FILE` for a photo.",
        )
    if "/" in target or "\\" in target or target.startswith((".", "~")):
        raise DataError(
            f"There is no file or folder {target!r}.",
            "Expected a run, a model folder, a folder of photos, or the name of a network.",
            "Check the spelling of the path.",
        )


def _is_list(path: Path) -> bool:
    from regraft.data.sources.find import LIST_SUFFIXES

    return path.suffix.lower() in LIST_SUFFIXES and path.is_file()


def _is_weights(path: Path) -> bool:
    """Any file but a photo, and a folder that is a checkpoint."""
    if path.is_dir():
        from regraft.weights.readers import safetensors, tf_checkpoint

        return tf_checkpoint.sniff(path, b"") or safetensors.sniff(path, b"")
    if not path.is_file():
        return False
    from regraft.data.sniff import known_format

    with path.open("rb") as stream:
        return known_format(stream.read(64)) is None


def _weights(path: Path, key: str | None, *, as_json: bool) -> None:
    from regraft.commit import as_json as to_json
    from regraft.weights.file import read_weights
    from regraft.weights.inspection import describe, render

    facts = describe(read_weights(path, key=key))
    typer.echo(to_json(facts, indent=2) if as_json else render(facts))


def _run(path: Path) -> dict[str, Any]:
    from regraft.errors import StorageError
    from regraft.run.folder import RunFolder

    run = RunFolder(path)
    try:
        return _run_facts(run, run.settings())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"The records of the run {str(path)!r} cannot be understood ({type(error).__name__}: {error}).",
            "Expected the records that regraft wrote.",
            "Restore the folder from a copy, or train again.",
        ) from error


def _run_facts(run: RunFolder, recipe: dict[str, Any]) -> dict[str, Any]:
    from regraft.evaluate.tasks import task_of, told
    from regraft.run.records import read_metrics

    status = run.read(run.status) or {}
    best = run.read(run.best)
    facts: dict[str, Any] = {
        "run": str(run.path),
        "state": status.get("state", "unknown") + (f" ({status['message']})" if status.get("message") else ""),
        "model": recipe["model"]["name"],
        "data": recipe["data"]["source"],
        "classes": ", ".join(run.read(run.classes) or []),
        "stages": [f"{stage['name']}: trains {', '.join(stage['train'])}" for stage in recipe["stages"]],
        "epochs": [
            f"{row['stage']} {row['epoch']}: val_loss {row['val_loss']:.4f}" + _main_measure(row)
            for row in read_metrics(run.metrics)
            if row.get("kind") == "epoch" and row.get("val_loss") is not None
        ],
    }
    if best is not None:
        facts["best"] = f"stage {best['stage']}, epoch {best['epoch']}, {recipe['monitor']} {best['value']:.4f}"
    for measured in sorted(run.predictions.glob("*.json")) if run.predictions.is_dir() else ():
        values = run.read(measured)
        main = task_of(values).main
        told_as = told(main, values[main]) if values[main] is not None else "not defined"
        facts[f"{task_of(values).names[main]} ({values['label']})"] = f"{told_as} of {values['num_images']} images"
    return facts


def _main_measure(row: dict[str, Any]) -> str:
    from regraft.evaluate.tasks import main_of, told

    main = main_of(row)
    return "" if main is None else f", {main} {told(main, row[main])}"


def _model_folder(path: Path) -> dict[str, Any]:
    from regraft.models.card import class_names_of
    from regraft.models.folder import read_config

    config = read_config(path)
    section = config["regraft"]
    meaning = {"output": section.get("output", "softmax")}
    if "thresholds" in section:
        meaning["thresholds"] = ", ".join(f"{name} {value:.4g}" for name, value in section["thresholds"].items())
    return {
        "model": str(path),
        "architecture": config["architecture"],
        "classes": ", ".join(class_names_of(config)),
        **meaning,
        "input": "x".join(map(str, config["pretrained_cfg"]["input_size"]))
        + f", {config['pretrained_cfg']['crop_mode']}",
        "mean": str(config["pretrained_cfg"]["mean"]),
        "std": str(config["pretrained_cfg"]["std"]),
        "timm can load it by itself": config["regraft"]["timm_loadable"],
    }


def _photos(path: Path, **choices: Any) -> dict[str, Any]:
    from regraft.data.check import check
    from regraft.data.leaks import with_leaks
    from regraft.data.open import open_data

    data = with_leaks(open_data(path, **choices))
    if data.segmentation:
        from regraft.data.pairs import surveyed

        data = surveyed(data)
    rows = []
    for name, split in data.splits.items():
        counts = data.counts(name)
        shown = ", ".join(f"{label} {count}" for label, count in list(zip(data.class_names, counts, strict=True))[:12])
        rows.append(f"{name}: {len(split)} images ({shown}{', ...' if len(counts) > 12 else ''})")
    kind = "any number for each image" if data.multilabel else "one for each image"
    return {
        "photos": str(path),
        "classes": len(data.class_names),
        "labels": "a mask for each image" if data.segmentation else kind,
        **({} if data.class_table is None else {"masks": _held(data.class_table)}),
        "splits": rows,
        "split by": f"regraft (seed {data.seed})" if data.split_origin == "random" else data.split_origin,
        "findings": [f"{finding.level}: {finding.text}" for finding in check(data)] or ["none"],
    }


def _held(table: ClassTable) -> str:
    """What masks hold, and what of it is ignored."""
    ignored = ", ".join(table.describe(code) for code in table.ignored[:12]) or "nothing"
    more = ", ..." if len(table.ignored) > 12 else ""
    return f"{'numbers' if table.coding == 'index' else 'colours'}; ignored: {ignored}{more}"


def _network(name: str, image_size: int | None, arguments: dict[str, Any], *, as_json: bool) -> None:
    if any(sign in name for sign in "*?["):
        from regraft.models.names import list_models

        names = list_models(name)
        typer.echo(json.dumps(names) if as_json else "\n".join(names) or f"no model name fits {name!r}")
        return
    from dataclasses import asdict

    from regraft.models.build import build_model
    from regraft.models.layers import format_table, list_layers

    layers = list_layers(build_model(name, **arguments), image_size)
    typer.echo(json.dumps([asdict(layer) for layer in layers], default=str) if as_json else format_table(layers))
