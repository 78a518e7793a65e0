"""`inspect`: what a path or a name holds: a run, a model, images with labels, weights, the layers of a network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.commit import as_json
from regraft.errors import DataError, SettingsError, StorageError, WeightsError, nearest, require_type
from regraft.run.invocation import typed_path
from regraft.wording import quantity

if TYPE_CHECKING:
    from regraft.data.class_table import ClassTable
    from regraft.run.folder import RunFolder

__all__ = ["Inspection", "inspect"]

Progress = Callable[[int, int], None]

_CHOICES = ("labels", "names", "group", "masks", "class_table", "ignore")


@dataclass(frozen=True)
class Inspection:
    """What a path or a name holds.

    Attributes:
        kind: `a run`, `a folder of runs`, `a cross-validation`, `a model folder`, `a folder of images`,
            `an archive of images`, `a list of images`, `a weights file`, or `the name of a network`.
        facts: What was found, as plain data.
        text: The same as the lines that `regraft inspect` prints.
        unused: The options that this kind does not read.
    """

    kind: str
    facts: Any
    text: str
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> str:
        """Return the facts as JSON, as `regraft inspect --json` prints them."""
        if self.kind == "the name of a network":
            return json.dumps(self.facts, default=str)
        return as_json(self.facts, indent=2)


def inspect(
    target: str | Path,
    *,
    key: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    **data: Any,
) -> Inspection:
    """Show what a path or a model contains, without changing anything.

    Args:
        target: A run, a folder of runs, a model folder, images (a folder, a list, a table), a weights file, or the name
            of a network (or a pattern of names).
        key: Which set of tensors of a weights file, as in `read_weights`.
        image_size: Side, or (height, width), in pixels, for the output shapes of a network.
        arguments: The arguments of a network, as `build_model` takes them.
        progress: Called with the number of images that are decoded, and of all.
        **data: How images are labelled, as `open_data` takes it: `labels`, `names`, `group`, `masks`, `class_table`,
            `ignore`.

    Raises:
        SettingsError: `target` is none of these.
        DataError: There is no such file or folder, or its images cannot be read as labelled images.
        WeightsError: The weights file cannot be read.
        StorageError: The records of a run are damaged.
    """
    require_type(target, (str, Path), "target", "give a path or the name of a network")
    unknown = [name for name in data if name not in _CHOICES]
    if unknown:
        raise SettingsError(f"`inspect` has no option {unknown[0]!r}.")
    path = Path(target)
    given = {"key": key, "image_size": image_size, "arguments": arguments, **data}
    given = {name: value for name, value in given.items() if value not in (None, [], {})}

    def found(kind: str, facts: Any, text: str | None = None, *, read: tuple[str, ...] = ()) -> Inspection:
        unused = tuple(name for name in given if name not in read)
        return Inspection(kind, facts, "\n".join(_lines(facts)) if text is None else text, unused)

    if _is_folder_of_runs(path):
        from regraft.run.listing import list_runs, table_of_runs

        rows = list_runs(path)
        return found("a folder of runs", [row.to_dict() for row in rows], table_of_runs(rows))
    if (path / "recipe.yaml").is_file():
        return found("a run", _run(path))
    if _is_cross_validation(path):
        return found("a cross-validation", _folds(path))
    if (path / "config.json").is_file():
        return found("a model folder", _model_folder(path))
    if _is_list(path):
        facts = _images(path, progress, names=data.get("names"), group=data.get("group"))
        return found("a list of images", facts, read=("names", "group"))
    if _is_packed_images(path) or _is_pattern(path):
        return found("an archive of images", _images(path, progress, **data), read=tuple(data))
    if _is_weights(path):
        try:
            return found("a weights file", *_weights(path, key), read=("key",))
        except WeightsError:
            if not _is_called_archive(path):
                raise
        return found("an archive of images", _images(path, progress, **data), read=tuple(data))
    if _is_folder(path):
        return found("a folder of images", _images(path, progress, **data), read=tuple(data))
    _require_name(path, str(target))
    described = _network(str(target), image_size, arguments or {})
    return found("the name of a network", *described, read=("image_size", "arguments"))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        if isinstance(value, list):
            yield f"{name}:"
            yield from (f"  {item}" for item in value)
        else:
            yield f"{name}: {value}"


def _is_cross_validation(path: Path) -> bool:
    from regraft.run.folds_folder import is_folds

    return is_folds(path)


def _is_folder_of_runs(path: Path) -> bool:
    from regraft.run.folds_folder import fold_runs
    from regraft.run.listing import holds_runs

    return holds_runs(path) and not fold_runs(path)


def _folds(path: Path) -> dict[str, Any]:
    """Return a cross-validation: what its folds share, how far it is, and its metrics."""
    from regraft.folds import read_folds
    from regraft.run.folds_folder import open_folds
    from regraft.run.listing import list_runs

    folds, done = open_folds(path), read_folds(path)
    recipe = (folds.read(folds.record) if folds is not None else None) or {}
    settings = recipe.get("recipe") or {}
    facts: dict[str, Any] = {
        "cross-validation": str(path),
        "state": "finished" if done is not None else f"not finished; `regraft resume {typed_path(path)}` continues it",
        "model": (settings.get("model") or {}).get("name"),
        "data": (settings.get("data") or {}).get("source"),
        "folds": [f"{row.name}: {row.state}, {row.best}" for row in list_runs(path)],
    }
    if done is not None:
        facts["metrics"] = done.render().splitlines()[1:]
        facts["out of fold"] = str(done.path / "predictions" / "out-of-fold.jsonl")
        facts["report"] = str(done.path / "report.html")
    return facts


def _require_name(path: Path, target: str) -> None:
    """Raise when the target is a file, or looks like a path to something that is not there."""
    from regraft.data.files import access
    from regraft.models.networks.names import closest_name, is_buildable
    from regraft.weights.file import SUFFIXES

    if access.exists(path):
        raise SettingsError(
            f"{target!r} is a file.",
            "a run, a model folder, a folder of images, or the name of a network",
            "the folder's name, or `regraft predict RUN FILE` for an image",
        )
    is_path = "/" in target or "\\" in target or target.startswith((".", "~"))
    is_path = is_path or path.suffix.lower() in (*SUFFIXES, ".csv", ".jpg", ".jpeg", ".png", ".zip")
    near = ""
    with contextlib.suppress(OSError):  # a folder that is not there, or may not be read
        near = nearest(path.name, access.names_in(path.parent))
    is_name = is_buildable(target) or closest_name(target) or any(sign in target for sign in "*?[")
    if is_path or (near and not is_name):
        raise DataError(
            f"There is no file or folder {target!r}{f'; did you mean {near}?' if near else '.'}",
            "a run, a model folder, a folder of images, a weights file, or the name of a network",
            "check the spelling of the path",
        )


def _is_folder(path: Path) -> bool:
    from regraft.data.files import access

    return access.is_folder(path)


def _is_list(path: Path) -> bool:
    from regraft.data.files import access
    from regraft.data.sources.labels.find import LIST_SUFFIXES

    return path.suffix.lower() in LIST_SUFFIXES and access.is_file(path)


def _is_packed_images(path: Path) -> bool:
    from regraft.data.sources.not_data import is_packed_images

    return is_packed_images(path)


def _is_called_archive(path: Path) -> bool:
    """Return whether a file is called like an archive, and not like weights too, as `model.pth.tar` is."""
    from regraft.data.files.archive_kinds import archive_stem
    from regraft.data.files.shards import looks_packed
    from regraft.weights.file import SUFFIXES

    return looks_packed(path.name) and not archive_stem(path.name).lower().endswith(tuple(SUFFIXES))


def _is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern of archives; others are patterns of networks."""
    from regraft.data.files.shards import is_pattern, looks_packed

    return is_pattern(str(path)) and looks_packed(path.name) and not path.exists()


def _is_weights(path: Path) -> bool:
    """Return whether it is a file other than an image, or a folder that is a checkpoint."""
    if path.is_dir():
        from regraft.weights.readers import safetensors
        from regraft.weights.readers.tensorflow import tf_checkpoint

        return tf_checkpoint.sniff(path, b"") or safetensors.sniff(path, b"")
    if not path.is_file():
        return False
    from regraft.data.decode.sniff import known_format

    with path.open("rb") as stream:
        return known_format(stream.read(64)) is None


def _weights(path: Path, key: str | None) -> tuple[dict[str, Any], str]:
    from regraft.weights.file import read_weights
    from regraft.weights.inspection import describe, render

    facts = describe(read_weights(path, key=key))
    return facts, render(facts)


def _run(path: Path) -> dict[str, Any]:
    from regraft.run.folder import RunFolder

    run = RunFolder(path)
    try:
        return _run_facts(run, run.settings())
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"The records of the run {str(path)!r} cannot be understood ({type(error).__name__}: {error}).",
            "the records that regraft wrote",
            "restore the folder from a copy, or train again",
        ) from error


def _run_facts(run: RunFolder, recipe: dict[str, Any]) -> dict[str, Any]:
    from regraft.evaluation.tasks import task_of, told
    from regraft.run.records import network_name, read_metrics

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
        facts["best"] = f"{network_name(best)}, {recipe['monitor']} {best['value']:.4f}"
    added = (run.read(run.additions) or {}).get("additions", [])
    if added:
        facts["added without training"] = [
            f"{name}: {quantity(num, 'image')}, to {one['run']}" for one in added for name, num in one["images"].items()
        ]
    for measured in sorted(run.predictions.glob("*.json")) if run.predictions.is_dir() else ():
        values = run.read(measured)
        main = task_of(values).main
        told_as = told(main, values[main]) if values[main] is not None else "not defined"
        facts[f"{task_of(values).names[main]} ({values['label']})"] = f"{told_as} of {values['num_images']} images"
    return facts


def _main_measure(row: dict[str, Any]) -> str:
    from regraft.evaluation.tasks import main_of, told

    main = main_of(row)
    return "" if main is None else f", {main} {told(main, row[main])}"


def _model_folder(path: Path) -> dict[str, Any]:
    from regraft.models.store.card import class_names_of
    from regraft.models.store.folder import read_config

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


def _images(path: Path, progress: Progress, **choices: Any) -> dict[str, Any]:
    from regraft.data.check import check
    from regraft.data.open import open_data
    from regraft.data.readable import with_readable

    data = open_data(path, **choices)
    num_images = sum(map(len, data.splits.values()))
    data = with_readable(data, progress)
    unreadable = len(data.quarantined)
    if data.segmentation:
        from regraft.data.masks.pairs import surveyed

        data = surveyed(data)
    rows = []
    for name, split in data.splits.items():
        counts = data.counts(name)
        shown = ", ".join(f"{label} {count}" for label, count in list(zip(data.class_names, counts, strict=True))[:12])
        rows.append(f"{name}: {quantity(len(split), 'image')} ({shown}{', ...' if len(counts) > 12 else ''})")
    kind = "any number for each image" if data.multilabel else "one for each image"
    return {
        "images": str(path),
        "classes": len(data.class_names),
        "labels": "a mask for each image" if data.segmentation else kind,
        **({} if data.class_table is None else {"masks": _held(data.class_table)}),
        "decoded": f"{quantity(num_images, 'image')}, {unreadable or 'none'} of them unreadable",
        "splits": rows,
        **({} if data.num_groups is None else {"groups": data.num_groups}),
        "split by": f"regraft (seed {data.seed})" if data.split_origin == "random" else data.split_origin,
        "findings": [f"{finding.level}: {finding.text}" for finding in check(data)] or ["none"],
    }


def _held(table: ClassTable) -> str:
    """Return the coding of the masks and their ignored values, as text."""
    ignored = ", ".join(table.describe(code) for code in table.ignored[:12]) or "nothing"
    more = ", ..." if len(table.ignored) > 12 else ""
    return f"{'numbers' if table.coding == 'index' else 'colours'}; ignored: {ignored}{more}"


def _network(
    name: str, image_size: int | tuple[int, int] | None, arguments: Mapping[str, Any]
) -> tuple[list[Any], str]:
    from regraft.models.zoo.catalogue import is_pattern, matching_models

    if is_pattern(name):
        names = matching_models(name)
        return names, "\n".join(names)
    from regraft.models.layers.layers import format_table, list_layers
    from regraft.models.zoo.build import build_model

    layers = list_layers(build_model(name, **arguments), image_size)
    return [asdict(layer) for layer in layers], format_table(layers)
