"""`export`: a run's network as one file that other programs run, proven before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from regraft import commit
from regraft.errors import SettingsError
from regraft.exports.formats import beside, is_of, is_page, require_exportable
from regraft.exports.int8.form import in_int8
from regraft.exports.other.mlflow import CARD, write_mlflow
from regraft.exports.other.openvino import as_openvino
from regraft.exports.other.torch_program import as_torch_program
from regraft.exports.page.heat import with_heat
from regraft.exports.page.offline import offline_page, require_photos
from regraft.exports.page.runtime import web_runtime
from regraft.exports.running.session import SealedSession
from regraft.exports.script import card_text, script_text
from regraft.exports.sealed_run import NUM_ODD_IMAGES, Progress, sealed_run
from regraft.summary import Summary

__all__ = ["NUM_ODD_IMAGES", "Export", "export"]


@dataclass(frozen=True, repr=False)
class Export(Summary):
    """What `export` wrote.

    Attributes:
        path: The sealed file, the page, or the folder of MLflow's.
        script: A script that runs it without regraft; None for a page, a .pt2 and a folder.
        card: What there is to know of it; None for a page, which says it itself.
        verified: How it was compared with the run.
        notes: What the file cannot say, by what was asked for, with the reason.
    """

    path: Path
    script: Path | None
    card: Path | None
    verified: Mapping[str, Any]
    notes: Mapping[str, str]

    def facts(self) -> dict[str, object]:
        """Return the path, and how the file was compared."""
        return {"path": str(self.path), **self.verified}

    def __str__(self) -> str:
        known = self.verified
        if "int8_way" in known:
            return f"{self.path}: {self._num_bytes / 1e6:.1f} MB, {_told_of_int8(known)}\n{self._beside}"
        probes = f"{known['num_probes']} golden probes and " if known["num_probes"] else ""
        largest = known.get("largest_difference")
        apart = (
            f"masks differ in at most {known['largest_mask_difference']:.2%} of the pixels"
            if largest is None
            else f"probabilities differ by at most {largest:.1g}"
        )
        opset = f"opset {known['opset']}; " if "opset" in known else ""
        return (
            f"{self.path}: {self._num_bytes / 1e6:.1f} MB, {opset}{probes}"
            f"{known['num_images']} odd images say the same, {apart}\n"
            f"{self._beside}"
        )

    @property
    def _num_bytes(self) -> int:
        files = self.path.iterdir() if self.path.is_dir() else (self.path, self.path.with_suffix(".bin"))
        return sum(path.stat().st_size for path in files if path.is_file())

    @property
    def _beside(self) -> str:
        if self.card is None:
            return "It opens in a browser, without a network."
        if self.script is None:
            return f"{self.card}: its card"
        return f"{self.script}: runs it without regraft; {self.card}: its card"


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    verify: int = NUM_ODD_IMAGES,
    checkpoint: str | None = None,
    model: nn.Module | None = None,
    int8: bool = False,
    calibrate: str | Path | None = None,
    runtime: str | Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Export:
    """Write a run's network as one file that other programs run: images of any size in, probabilities or masks out.

    As NAME.html it is a page that opens by double-click, offline: photos are dropped, chosen or taken there.

    Resizing, normalisation and temperature are inside the file, and class names, thresholds and preprocessing in its
    metadata. Before anything is written, it has to say of the golden probes and of odd images what the run says: the
    same classes, probabilities within 0.001, masks in 99.9 % of the pixels of each image.

    Args:
        run: A run folder, a model folder, or a cross-validation, whose networks go into one file.
        out: NAME.onnx, or NAME.xml with NAME.bin for OpenVINO, or NAME.pt2 of `torch.export`, with NAME.py, a script
            that runs it, and NAME.md, its card, beside it; or NAME.html; or a folder for MLflow. Nothing is
            overwritten.
        to: The format: onnx, openvino, torch, html, mlflow. None takes it from the suffix of `out`.
        verify: How many odd images it is compared on: of 12 kinds in turn.
        checkpoint: Of a run, another network than the one it has chosen, as for `load_model`.
        model: The module itself, for a run that trained a module of the user's own.
        int8: Whether convolutions and linear layers compute in 8-bit integers: a quarter of the size, and faster. The
            file is written only if it loses at most 0.3 points of accuracy (of masks: of mean IoU and of pixel
            accuracy) on the run's validation images, and with 95 % confidence at most one; layers that cost more than
            that stay floats.
        calibrate: For int8: a folder of labelled images, or of images with masks, where the run's own are gone.
        runtime: Of a page, the file of onnxruntime-web, as `npm pack` writes it. None takes the cache, or has npm fetch
            it once.
        progress: Called with (images compared, images in all).

    Raises:
        SettingsError: There is no such format; packages are not installed; the run has not finished; or a layer cannot
            be exported, and which.
        DataError: int8, and the images that it is fitted to or measured on are gone.
        WeightsError: A weight is not a finite number; or the file does not say what the run says, or in int8 loses too
            much.
        StorageError: There is something of these names, or they cannot be written.
    """
    target = Path(out)
    require_exportable(run, target, to, checkpoint, runtime=runtime)
    if verify < 0:
        raise SettingsError(f"{verify} images to compare were asked for.", "a number from 0 on", "")
    if int8 and (is_of(target, "openvino") or is_of(target, "torch")):
        raise SettingsError("int8 is written as .onnx, which OpenVINO reads too.", "NAME.onnx", "")
    if calibrate is not None and not int8:
        raise SettingsError("Images to calibrate on were named, and floats need none.", "", "add --int8")
    web = web_runtime(runtime) if is_page(target) else None
    file = sealed_run(run, target.name, verify=verify, checkpoint=checkpoint, model=model, progress=progress)
    if int8:
        file = in_int8(file, run, calibrate)
    seal = file.seal
    if web is not None:
        require_photos(seal)
        shown = with_heat(file).data
        _write({target: offline_page(shown, seal, target.stem, web, SealedSession(shown).outputs).encode()})
        return Export(target, None, None, seal.verified, seal.notes)
    if is_of(target, "mlflow"):
        write_mlflow(target, file)
        return Export(target, None, target / CARD, seal.verified, seal.notes)
    files = {target: file.data}
    if is_of(target, "openvino"):
        file, parts = as_openvino(file, target.name, verify, progress)
        files = {target.with_suffix(suffix): data for suffix, data in parts.items()}
    elif is_of(target, "torch"):
        file, files[target] = as_torch_program(file, target.name, verify, progress)
    *scripts, card = beside(target)
    texts = {path: script_text(file.seal, target.name) for path in scripts}
    texts[card] = card_text(file.seal, file.card, target.name)
    _write({**{path: text.encode() for path, text in texts.items()}, **files})
    return Export(target, next(iter(scripts), None), card, file.seal.verified, file.seal.notes)


def _told_of_int8(known: Mapping[str, Any]) -> str:
    kept = ", ".join(known["layers_in_floats"]) or "none"
    num = known["int8_num_images"]
    told = [
        f"{shown.format(known[f'{name}_int8'], num)}, in floats {known[f'{name}_fp32']:.2%}: {_drop(known, name)}"
        for name, shown in _MEASURES.items()
        if f"{name}_int8" in known
    ]
    return f"int8 ({known['int8_way']}); {'; '.join(told)}; layers in floats: {kept}"


_MEASURES = {
    "accuracy": "{:.2%} of {:,} images right",
    "miou": "mean IoU {:.2%} on {:,} images",
    "pixel_accuracy": "pixel accuracy {:.2%}",
}


def _drop(known: Mapping[str, Any], name: str) -> str:
    low, high = (100 * share for share in known[f"{name}_drop_interval"])
    drop = 100 * (known[f"{name}_fp32"] - known[f"{name}_int8"])
    return f"a drop of {drop:.2f} points (95 % interval {low:.2f} to {high:.2f})"


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
