"""A run's network as a sealed file, proven; nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from regraft.errors import SettingsError, WeightsError
from regraft.exports.proving.proof import Proof, contents_of, prove, replay
from regraft.exports.running.guard import guarded, network_sha256
from regraft.exports.running.session import SealedSession
from regraft.exports.seal import MOST_SCORES, Seal
from regraft.exports.sealing.model import OPSET, sealed_model
from regraft.exports.sealing.network import SealedNetwork, sealed_network
from regraft.models.describe.info import info_of
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, threshold_names
from regraft.models.store.ensemble import Ensemble
from regraft.models.store.folder import WEIGHTS, find_model_folder, load_model, load_probes
from regraft.models.store.license import weights_license
from regraft.models.store.unfinished import named_epoch
from regraft.run.folds_folder import fold_runs

__all__ = ["NUM_ODD_IMAGES", "Progress", "SealedRun", "sealed_run", "verified", "with_metadata"]

NUM_ODD_IMAGES = 48
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SealedRun:
    """A sealed file in memory.

    Attributes:
        data: Its bytes.
        seal: What it says of itself.
        card: The card of the model folder; empty where there is none.
        network: The network that it was made from.
        contents: Images of its size that were compared, uint8 (h, w, C).
    """

    data: bytes
    seal: Seal
    card: str
    network: nn.Module
    contents: list[Any]


@dataclass(frozen=True)
class _Source:
    """Where a network comes from: its weights' file, the model card, and the golden probes of each of its members."""

    weights: Path
    card: str
    probes: tuple[Mapping[str, Tensor], ...]


def sealed_run(
    run: str | Path,
    name: str,
    *,
    verify: int = NUM_ODD_IMAGES,
    checkpoint: str | None = None,
    model: nn.Module | None = None,
    progress: Progress = lambda done, total: None,
) -> SealedRun:
    """Return a run's network as a sealed file that says of the golden probes and of odd images what the run says.

    Args:
        run: A run folder, a model folder, or a cross-validation.
        name: What the file is called in errors.
        verify: How many odd images it is compared on.
        checkpoint: Of a run, another network than the one it has chosen.
        model: The module itself, for a run that trained a module of the user's own.
        progress: Called with (images compared, images in all).

    Raises:
        SettingsError: A layer cannot be exported, and which.
        WeightsError: A weight is not a finite number; or the file does not say what the run says.
    """
    network = load_model(run, model=model, checkpoint=checkpoint)
    source = _source(run, checkpoint)
    _require_sound(network, source, str(run))
    sealed = sealed_network(network)
    graph = sealed_model(sealed, _pixels(network))
    seal = _seal(network, sealed, source)
    session = SealedSession(with_metadata(graph, seal), threads=torch.get_num_threads(), name=name)
    contents = contents_of(network, source.probes[0] if source.probes else None)
    proof = prove(session, network, contents, verify, probes=bool(source.probes), progress=progress)
    seal = replace(seal, verified=verified(proof, seal.output))
    return SealedRun(with_metadata(graph, seal), seal, source.card, network, contents)


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
        license=weights_license(network),
        model_sha256=digest,
        nonconformity=scores,
        notes=notes,
        colours=info.colours or (),
    )


def verified(proof: Proof, output: str) -> dict[str, Any]:
    """Return how a file was compared, as it stands in its metadata."""
    values = {"opset": OPSET, **proof.to_dict()}
    if output == "segmentation":
        values["largest_mask_difference"] = values.pop("largest_difference")
    return values


def with_metadata(graph: onnx.ModelProto, seal: Seal) -> bytes:
    """Return the bytes of a graph with what is known of it, and with what notices changes."""
    del graph.metadata_props[:]
    texts = guarded(seal.to_metadata(), network_sha256(graph.SerializeToString()))
    onnx.helper.set_model_props(graph, texts)
    return bytes(graph.SerializeToString())
