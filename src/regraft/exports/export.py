"""`export`: a run's network as one file that other programs run, proven before it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from regraft import commit
from regraft.errors import SettingsError, WeightsError
from regraft.exports.formats import beside, require_exportable
from regraft.exports.proving.proof import Proof, contents_of, prove, replay
from regraft.exports.running.guard import guarded, network_sha256
from regraft.exports.running.session import SealedSession
from regraft.exports.script import card_text, script_text
from regraft.exports.seal import MOST_SCORES, Seal
from regraft.exports.sealing.model import OPSET, sealed_model
from regraft.exports.sealing.network import SealedNetwork, sealed_network
from regraft.models.describe.info import info_of
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, threshold_names
from regraft.models.store.ensemble import Ensemble
from regraft.models.store.folder import WEIGHTS, find_model_folder, load_model, load_probes
from regraft.models.store.unfinished import named_epoch
from regraft.run.folds_folder import fold_runs
from regraft.summary import Summary

__all__ = ["NUM_ODD_IMAGES", "Export", "export"]

NUM_ODD_IMAGES = 48
Progress = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Export(Summary):
    """What `export` wrote.

    Attributes:
        path: The sealed file.
        script: A script that runs it without regraft.
        card: What there is to know of it.
        verified: How it was compared with the run.
        notes: What the file cannot say, by what was asked for, with the reason.
    """

    path: Path
    script: Path
    card: Path
    verified: Mapping[str, Any]
    notes: Mapping[str, str]

    def facts(self) -> dict[str, object]:
        """Return the path, and how the file was compared."""
        return {"path": str(self.path), **self.verified}

    def __str__(self) -> str:
        known = self.verified
        probes = f"{known['num_probes']} golden probes and " if known["num_probes"] else ""
        largest = known.get("largest_difference")
        apart = (
            f"masks differ in at most {known['largest_mask_difference']:.2%} of the pixels"
            if largest is None
            else f"probabilities differ by at most {largest:.1g}"
        )
        return (
            f"{self.path}: {self.path.stat().st_size / 1e6:.1f} MB, opset {known['opset']}; {probes}"
            f"{known['num_images']} odd images say the same, {apart}\n"
            f"{self.script}: runs it without regraft; {self.card}: its card"
        )


@dataclass(frozen=True)
class _Source:
    """Where a network comes from: its weights' file, the model card, and the golden probes of each of its members."""

    weights: Path
    card: str
    probes: tuple[Mapping[str, Tensor], ...]


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    verify: int = NUM_ODD_IMAGES,
    checkpoint: str | None = None,
    model: nn.Module | None = None,
    progress: Progress = lambda done, total: None,
) -> Export:
    """Write a run's network as one file that other programs run: images of any size in, probabilities or masks out.

    Resizing, normalisation and temperature are inside the file, and class names, thresholds and preprocessing in its
    metadata. Before anything is written, it has to say of the golden probes and of odd images what the run says: the
    same classes, probabilities within 0.001, masks in 99.9 % of the pixels of each image.

    Args:
        run: A run folder, a model folder, or a cross-validation, whose networks go into one file.
        out: NAME.onnx. NAME.py, a script that runs it, and NAME.md, its card, are written beside it. Nothing is
            overwritten.
        to: The format: onnx. None takes it from the suffix of `out`.
        verify: How many odd images it is compared on: of 12 kinds in turn.
        checkpoint: Of a run, another network than the one it has chosen, as for `load_model`.
        model: The module itself, for a run that trained a module of the user's own.
        progress: Called with (images compared, images in all).

    Raises:
        SettingsError: There is no such format; packages are not installed; the run has not finished; or a layer cannot
            be exported, and which.
        WeightsError: A weight is not a finite number; or the file does not say what the run says.
        StorageError: There is something of these names, or they cannot be written.
    """
    target = Path(out)
    require_exportable(run, target, to, checkpoint)
    if verify < 0:
        raise SettingsError(f"{verify} images to compare were asked for.", "a number from 0 on", "")
    network = load_model(run, model=model, checkpoint=checkpoint)
    source = _source(run, checkpoint)
    _require_sound(network, source, str(run))
    sealed = sealed_network(network)
    graph = sealed_model(sealed, _pixels(network))
    seal = _seal(network, sealed, source)
    _set_metadata(graph, seal)
    session = SealedSession(graph.SerializeToString(), threads=torch.get_num_threads(), name=str(target))
    contents = contents_of(network, source.probes[0] if source.probes else None)
    proof = prove(session, network, contents, verify, probes=bool(source.probes), progress=progress)
    seal = replace(seal, verified=_verified(proof, seal.output))
    _set_metadata(graph, seal)
    script, card = beside(target)
    texts = {script: script_text(seal, target.name), card: card_text(seal, source.card, target.name)}
    _write({**{path: text.encode() for path, text in texts.items()}, target: graph.SerializeToString()})
    return Export(target, script, card, seal.verified, seal.notes)


def _source(run: str | Path, checkpoint: str | None) -> _Source:
    if checkpoint is not None:
        first = next(iter(fold_runs(run)), run)
        return _Source(named_epoch(first, checkpoint).weights, "", ())
    folders = [find_model_folder(path) for path in fold_runs(run) or [Path(run)]]
    card = folders[0] / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return _Source(folders[0] / WEIGHTS, text, tuple(load_probes(folder) for folder in folders))


def _require_sound(network: nn.Module, source: _Source, name: str) -> None:
    """Require finite weights, and that the network gives the logits of its golden probes.

    Raises:
        WeightsError: It does not.
    """
    for tensor_name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"The weights of {name!r} are not all numbers: {tensor_name} holds NaN or infinity.",
                "finite weights",
                "train again with a lower learning rate, or export another network with `--checkpoint`",
            )
    members = network.members if isinstance(network, Ensemble) else [network]
    for member, probes in zip(members, source.probes, strict=False):
        replay(member, probes, name)


def _pixels(network: nn.Module) -> Any:
    preprocessing = info_of(network).preprocessing
    if preprocessing is None or (info_of(network).output == "segmentation" and preprocessing.pixels.resize == "crop"):
        raise SettingsError(
            "The network has no preprocessing that a file could carry out."
            if preprocessing is None
            else "The model was trained on images whose borders are cut off (resize: crop).",
            "a model that sees whole images, so that each pixel gets a class",
            "train with `data.resize: squash`, or pad",
        )
    return preprocessing.pixels


def _seal(network: nn.Module, sealed: SealedNetwork, source: _Source) -> Seal:
    info = info_of(network)
    if info.preprocessing is None or info.class_names is None:
        raise SettingsError("The network has no class names.", "a model that regraft has trained", "")
    stored = {
        name: info.thresholds.get(name, DEFAULT_THRESHOLD) for name in threshold_names(info.output, info.class_names)
    }
    notes = dict(info.trust.notes) if info.trust is not None else {}
    scores = None if info.trust is None or info.trust.nonconformity is None else info.trust.nonconformity.numpy()
    if scores is not None and len(scores) > MOST_SCORES:
        notes["sets"] = f"the run keeps scores of {len(scores):,} images, and a file carries {MOST_SCORES:,} at most"
        scores = None
    if info.trust is not None and info.trust.detector is not None and sealed.typicality is None:
        notes["reject"] = "the features of its network cannot be taken out of its graph"
    with source.weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Seal(
        architecture=info.architecture,
        output=info.output,
        class_names=info.class_names,
        preprocessing=info.preprocessing,
        thresholds=stored if info.calibration is None else info.calibration.thresholds(stored),
        temperatures=() if info.calibration is None else info.calibration.temperatures,
        license=_license(network),
        model_sha256=digest,
        nonconformity=scores,
        notes=notes,
        colours=info.colours or (),
    )


def _license(network: nn.Module) -> str:
    """Return the licence of the pretrained weights, as timm states it."""
    first = network.members[0] if isinstance(network, Ensemble) else network
    configs = [getattr(part, "pretrained_cfg", None) for part in (first, getattr(first, "encoder", None))]
    stated = [config.get("license") for config in configs if isinstance(config, dict)]
    return next((str(found) for found in stated if found), "not stated")


def _verified(proof: Proof, output: str) -> dict[str, Any]:
    values = {"opset": OPSET, **proof.to_dict()}
    if output == "segmentation":
        values["largest_mask_difference"] = values.pop("largest_difference")
    return values


def _set_metadata(graph: onnx.ModelProto, seal: Seal) -> None:
    del graph.metadata_props[:]
    texts = guarded(seal.to_metadata(), network_sha256(graph.SerializeToString()))
    onnx.helper.set_model_props(graph, texts)


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all of them, the last one last, or none."""
    written: list[Path] = []
    try:
        for path, data in files.items():
            commit.write_new(path, data)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
