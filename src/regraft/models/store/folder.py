"""The model folder, read and written: config.json, model.safetensors, probes.safetensors, README.md.

It is timm's hub layout. Where timm builds the same network, `timm.create_model("local-dir:PATH", pretrained=True)`
gives the same logits (checked on the probes when the folder is written); every other model names an architecture
`regraft/...` that timm refuses, and `load_model` loads it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regraft import commit
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import RegraftError, SettingsError, StorageError
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, OUTPUTS, row_names, threshold_names
from regraft.models.describe.provenance import Provenance
from regraft.models.networks.names import is_buildable
from regraft.models.store.card import class_names_of, model_card
from regraft.models.store.ensemble import Ensemble
from regraft.models.store.find import CONFIG, WEIGHTS, find_model_folder
from regraft.models.store.trust_file import TRUST, read_trust, write_trust
from regraft.models.store.unfinished import StoredEpoch, best_epoch, named_epoch
from regraft.models.store.unshared import unshared
from regraft.models.surgery.surgery import adapt_as_stored
from regraft.models.zoo.arguments import argument_mistakes
from regraft.models.zoo.build import build_model
from regraft.run.folds_folder import fold_runs
from regraft.run.invocation import typed_path
from regraft.run.stored import stored_json
from regraft.settings.head import Head
from regraft.wording import quantity

__all__ = [
    "CONFIG",
    "PROBES",
    "WEIGHTS",
    "find_model_folder",
    "load_model",
    "load_probes",
    "loaded_model",
    "model_config",
    "read_config",
    "write_model",
]

PROBES, CARD = "probes.safetensors", "README.md"
PROBE_TOLERANCE = 1e-4
_LONGEST_NAME = 200
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what records of another shape raise
_NOT_ARGUMENTS = ("num_classes", "head", "image_size", "own_module")
_log = logging.getLogger("regraft")


def write_model(
    path: Path, model: nn.Module, *, probes: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the model folder in one commit and return its config.

    Args:
        path: The folder; one that is there is replaced as a whole.
        model: An adapted model (with class names and preprocessing), on any device.
        probes: `images` (N, 3, H, W), normalised, in fp32, and the `logits` (N, classes) that the model gives.
        facts: What the model card says beside (data set, metrics, stages).

    Raises:
        StorageError: The disk is full, read-only or damaged.
    """
    info = info_of(model)
    config = _config(model, info, timm_name=_timm_name(model, info))
    with commit.folder(path) as folder:
        save_file(unshared(model.state_dict()), folder / WEIGHTS, metadata=_metadata(info))
        _sort_header(folder / WEIGHTS)
        save_file({name: tensor.contiguous() for name, tensor in probes.items()}, folder / PROBES)
        if info.trust is not None:
            write_trust(folder / TRUST, info.trust)
        commit.write_json(folder / CONFIG, config)
        if not config["architecture"].startswith("regraft/") and not _timm_agrees(folder, probes):
            config = _config(model, info, timm_name=None)
            commit.write_json(folder / CONFIG, config)
        commit.write_text(folder / CARD, model_card(config, facts or {}))
    return config


def load_model(path: str | Path, *, model: nn.Module | None = None, checkpoint: str | None = None) -> nn.Module:
    """Load a model folder, or a run's, as a plain `nn.Module` in evaluation mode; the folds of one as an `Ensemble`.

    `regraft.models.describe.info.info_of(model)` has its `class_names` and `preprocessing`; so have the attributes
    `model.regraft_info.class_names` and `.preprocessing`.

    Args:
        path: A model folder, a run folder (one that has not finished gives its best epoch so far), or that of a
            cross-validation.
        model: The module itself, for a run that trained a module of the user's own. One that the weights fit is
            filled in place; of one as it was before `adapt`, an adapted copy is filled.
        checkpoint: Of a run, another network than the one that it has chosen: a stage's name for the best epoch of that
            stage, `last` for the last epoch.

    Raises:
        SettingsError: There is no model at `path`, or it needs `model`; or no such network is kept.
        StorageError: Its files are damaged.
    """
    folds = fold_runs(path)
    if folds:
        return Ensemble([load_model(fold, checkpoint=checkpoint) for fold in folds]).eval()
    if checkpoint is not None:
        return _load_epoch(path, named_epoch(path, checkpoint), model)
    best = best_epoch(path)
    if best is not None:
        _log.warning("%s has not finished: this is its best epoch so far (%s)", path, best.told)
        return _load_epoch(path, best, model)
    folder = find_model_folder(path)
    config = read_config(folder)
    reason = commit.damage(folder, only=[WEIGHTS]) if (folder / commit.MANIFEST).exists() else None
    if reason is not None:
        raise StorageError(
            f"The model in {str(folder)!r} is damaged: {reason}.",
            "the weights that regraft wrote there",
            f"restore the folder from a copy, or train again; without {commit.MANIFEST} the weights are not checked",
        )
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{str(folder / WEIGHTS)!r} cannot be read: {error}.",
            "the weights that regraft wrote there",
            "restore the folder from a copy, or train again",
        ) from error
    filled = _filled(config, state, folder, path, model)
    info_of(filled).trust = read_trust(folder / TRUST)
    return filled


def loaded_model(model: str | Path | nn.Module, checkpoint: str | None = None) -> nn.Module:
    """Return the model itself, or the one that `load_model` finds.

    Raises:
        SettingsError: As `load_model`; or a checkpoint of a model that is loaded already.
    """
    if not isinstance(model, nn.Module):
        return load_model(model, checkpoint=checkpoint)
    if checkpoint is not None:
        raise SettingsError(
            f"The checkpoint {checkpoint!r} was asked for, and the model is loaded already.",
            "a run's folder",
            f"load it with `rg.load_model(RUN, checkpoint={checkpoint!r})`",
        )
    return model


def _filled(
    config: dict[str, Any], state: dict[str, Tensor], folder: Path, path: str | Path, model: nn.Module | None
) -> nn.Module:
    """Return the network that a config describes, with these weights and what the config says of it."""
    model = _build(config, folder) if model is None else _fitted(config, model, state)
    _load_all(model, state, folder)
    info = info_of(model)
    info.origin = Provenance(
        str(path), keras_rows=info.origin.keras_rows
    )  # no new layers: every tensor is the folder's
    info.class_names = class_names_of(config)
    info.preprocessing = Preprocessing.from_dict(config["regraft"]["preprocessing"])
    info.output = config["regraft"].get("output", "softmax")
    info.thresholds = dict(config["regraft"].get("thresholds", {}))
    colours = config["regraft"].get("class_colours")
    info.colours = None if colours is None else tuple((red, green, blue) for red, green, blue in colours)
    calibration = config["regraft"].get("calibration")
    info.trust = None
    info.calibration = None if calibration is None else Calibration.from_dict(calibration, config["num_classes"])
    model.regraft_info = info  # type: ignore[assignment]
    return model.eval()


def _load_epoch(path: str | Path, epoch: StoredEpoch, model: nn.Module | None) -> nn.Module:
    """Return the network of an epoch that is not in the model folder."""
    try:
        _check_config(epoch.config)
        state = load_file(epoch.weights)
    except (OSError, SafetensorError, RegraftError, *_DAMAGE) as error:
        raise StorageError(
            f"The network of {epoch.told} of {str(path)!r} cannot be loaded ({type(error).__name__}: {error}).",
            "the records that regraft wrote",
            f"`regraft resume {typed_path(path)}` to continue the run",
        ) from error
    return _filled(epoch.config, state, epoch.weights.parent, path, model)


def model_config(model: nn.Module) -> dict[str, Any]:
    """Return the config.json of a model that is not trained yet, for regraft alone."""
    return _config(model, info_of(model), timm_name=None)


def load_probes(path: str | Path) -> dict[str, Tensor]:
    """Return the golden probes of a model folder: `images` (N, 3, H, W) and `logits` (N, classes), fp32."""
    return load_file(find_model_folder(path) / PROBES)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder that regraft wrote.

    Raises:
        StorageError: It is damaged, or was not written by regraft.
    """
    try:
        config: dict[str, Any] = stored_json(folder / CONFIG, linked=True)  # as in the hub's cache
        _check_config(config)
    except (RegraftError, *_DAMAGE) as error:
        raise StorageError(
            f"{str(folder / CONFIG)!r} is damaged or was not written by regraft ({type(error).__name__}: {error}).",
            "a config.json with a `regraft` section",
            "restore the folder from a copy; for a model of timm's own use `regraft train --model`",
        ) from error
    return config


def _check_config(config: dict[str, Any]) -> None:
    """Read every key that loading needs; what is missing or of another kind raises."""
    section = config["regraft"]
    Preprocessing.from_dict(section["preprocessing"])
    rows, arguments = config["label_names"], section["build"]["args"]
    names = section.get("class_names", rows)
    for listed in (rows, names):
        texts = isinstance(listed, list) and all(isinstance(name, str) for name in listed)
        if not texts or len(set(listed)) < len(listed):
            raise ValueError("label_names is not a list of different names")
    output, thresholds = section.get("output", "softmax"), section.get("thresholds", {})
    if output not in OUTPUTS:
        raise ValueError(f"the output {output!r} is none of {', '.join(OUTPUTS)}")
    if tuple(rows) != row_names(output, names):
        raise ValueError(f"label_names are not those of the {output} rows of class_names")
    if len(rows) != config["num_classes"]:
        raise ValueError(f"label_names has {quantity(len(rows), 'name')}, and num_classes is {config['num_classes']}")
    if not set(thresholds) <= set(threshold_names(output, names)) or not all(map(_is_share, thresholds.values())):
        raise ValueError("thresholds are not one share from 0 to 1 for a name")
    if not _are_colours(section.get("class_colours"), len(names)):
        raise ValueError("class_colours are not three numbers from 0 to 255 for each class")
    if "calibration" in section:
        Calibration.from_dict(section["calibration"], len(rows))
    _check_build(section["build"]["name"], arguments)
    if "head" in arguments and Head(**arguments["head"]).resolved_output != output:
        raise ValueError(f"the head is built for another output than {output!r}")


def _check_build(name: Any, arguments: Any) -> None:
    """Refuse arguments that name a file or an address: a folder may come from a stranger."""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not isinstance(arguments, dict):
        raise ValueError("build is not a name with arguments")
    if arguments.get("own_module"):
        return  # never built from its name
    asked = {key: value for key, value in arguments.items() if key not in _NOT_ARGUMENTS}
    if mistakes := argument_mistakes(name, asked):
        raise ValueError("; ".join(mistakes))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _are_colours(value: Any, num: int) -> bool:
    if value is None:
        return True
    rows = value if isinstance(value, list) and len(value) == num else [None]
    return all(
        isinstance(row, list) and len(row) == 3 and all(type(level) is int and 0 <= level <= 255 for level in row)
        for row in rows
    )


def _metadata(info: ModelInfo) -> dict[str, str]:
    """Return the metadata of the safetensors file: the class name of each row of the classifier."""
    names = {"class_names": json.dumps(list(info.class_names))} if info.class_names else {}
    return {"format": "pt", **names}


def _sort_header(path: Path) -> None:
    """Give a safetensors file's metadata one order, in place: the library's differs from process to process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # only ever shorter, where the library wrote spaces at the end
            file.seek(8)
            file.write(text.ljust(length))


def _timm_name(model: nn.Module, info: ModelInfo) -> str | None:
    """Return the timm architecture that builds the same network, if there is one to try."""
    import timm

    plain = not isinstance(info.args.get("head"), dict) or Head(**info.args["head"]).is_plain
    own = info.args.get("own_module") or info.args.get("adjusted") or not timm.is_model(info.architecture)
    return info.architecture if plain and not own else None


def _config(model: nn.Module, info: ModelInfo, *, timm_name: str | None) -> dict[str, Any]:
    if info.class_names is None or info.preprocessing is None:
        raise SettingsError(
            "This model has no class names or no preprocessing.",
            "a model folder holds both, so that predictions are names",
            "pass the model through `rg.adapt(model, classes=[...])` first",
        )
    preprocessing = info.preprocessing
    height, width = preprocessing.pixels.size
    arguments = {key: value for key, value in info.args.items() if key not in _NOT_ARGUMENTS}
    rows = list(row_names(info.output, info.class_names))
    return {
        "architecture": timm_name.split(".")[0] if timm_name else f"regraft/{info.architecture}",
        "num_classes": len(rows),
        "num_features": int(getattr(model, "num_features", 0) or 0),
        "label_names": rows,
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": len(rows),
            "input_size": [preprocessing.num_channels, height, width],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.pixels.interpolation,
            "crop_pct": 1.0,
            "crop_mode": {"squash": "squash", "crop": "center", "pad": "border"}[preprocessing.pixels.resize],
            "classifier": getattr(model, "pretrained_cfg", {}).get("classifier"),
            "first_conv": getattr(model, "pretrained_cfg", {}).get("first_conv"),
            "label_names": rows,
        },
        "regraft": {
            "format": 1,
            "timm_loadable": timm_name is not None,
            **_meaning(info),
            **({} if info.calibration is None else {"calibration": info.calibration.to_dict()}),
            "build": {"name": info.architecture, "args": info.args},
            "preprocessing": preprocessing.to_dict(),
        },
    }


def _meaning(info: ModelInfo) -> dict[str, Any]:
    """Return the config's output kind, with thresholds or mask colours, which turn logits into class names."""
    names = threshold_names(info.output, info.class_names or ())
    if not names:
        colours = {} if info.colours is None else {"class_colours": [list(colour) for colour in info.colours]}
        return {"output": info.output, **colours}
    thresholds = {name: info.thresholds.get(name, DEFAULT_THRESHOLD) for name in names}
    meaning = {"output": info.output, "thresholds": thresholds, "default_threshold": DEFAULT_THRESHOLD}
    return (
        meaning
        if len(names) == len(info.class_names or ())
        else {**meaning, "class_names": list(info.class_names or ())}
    )


def _timm_agrees(folder: Path, probes: Mapping[str, Tensor]) -> bool:
    """Return whether timm alone builds this folder's network, loads all of it and gives the same logits."""
    import timm

    try:
        twin = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            logits = twin(probes["images"])
    except Exception as error:  # whatever timm raises, the answer is that it cannot load this folder
        _log.info("timm cannot load this model by itself: %s", error)
        return False
    if logits.shape != probes["logits"].shape:
        return False
    scale = probes["logits"].abs().max().clamp(min=1e-6)
    return bool((logits - probes["logits"]).abs().max() / scale <= PROBE_TOLERANCE)


def _build(config: dict[str, Any], folder: Path) -> nn.Module:
    build = config["regraft"]["build"]
    if build["args"].get("own_module"):
        raise SettingsError(
            f"{str(folder)!r} holds the weights of a module of your own, which regraft cannot build.",
            "that module as well",
            "`rg.load_model(path, model=module)` in Python",
        )
    if not is_buildable(build["name"]):
        raise StorageError(
            f"{str(folder / CONFIG)!r} names the network {build['name']!r}, which regraft and timm do not know.",
            "a network that this version can build",
            "restore the folder from a copy, or use the versions of regraft and timm that wrote it",
        )
    arguments = {key: value for key, value in build["args"].items() if key not in _NOT_ARGUMENTS}
    arguments["in_channels"] = arguments.pop("in_chans", 3)
    try:
        return _adapted(config, build_model(build["name"], **arguments), in_place=True)
    except RegraftError as error:
        raise _unbuildable(folder, error.what, error.details) from error
    except Exception as error:  # an architecture raises whatever its own code raises on numbers that do not fit
        raise _unbuildable(folder, f"{type(error).__name__}: {error}") from error


def _unbuildable(folder: Path, reason: str, details: Sequence[str] = ()) -> StorageError:
    return StorageError(
        f"The network that {str(folder / CONFIG)!r} describes cannot be built: {reason.rstrip('.')}.",
        "the config.json that regraft wrote",
        "restore the folder from a copy, or use the versions of regraft and timm that wrote it",
        details=details,
    )


def _adapted(config: dict[str, Any], model: nn.Module, *, in_place: bool = False) -> nn.Module:
    arguments = config["regraft"]["build"]["args"]
    return adapt_as_stored(
        model,
        classes=class_names_of(config),
        head=Head(**arguments.get("head", {})),
        in_channels=arguments.get("in_chans") if arguments.get("own_module") else None,
        preprocessing=Preprocessing.from_dict(config["regraft"]["preprocessing"]),
        in_place=in_place,
    )


def _fitted(config: dict[str, Any], model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the user's own module, adapted as it was for training unless the weights fit it as it is."""
    fits = not _misfits(model.state_dict(), state)
    return model if fits or info_of(model).class_names is not None else _adapted(config, model)


def _misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    wrong = set(expected) ^ set(state)
    wrong |= {name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape}
    return sorted(wrong)


def _load_all(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    wrong = _misfits(model.state_dict(), state)
    if wrong:
        raise StorageError(
            f"{str(folder / WEIGHTS)!r} does not fit the network that {CONFIG} describes: "
            f"{quantity(len(wrong), 'tensor differs', 'tensors differ')}, the first is {wrong[0]!r}.",
            "the two files of one model",
            "restore the folder from a copy, or train again",
        )
    model.load_state_dict(dict(state))
