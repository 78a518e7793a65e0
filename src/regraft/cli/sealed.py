"""`regraft predict` with an exported file: onnxruntime in the place of torch, the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.exports.running.predictor import SealedMaskPredictor, SealedPredictor
    from regraft.exports.running.session import SealedSession

__all__ = ["class_predictor", "mask_predictor", "opened_export"]


def opened_export(path: Path, threads: int | None) -> SealedSession | None:
    """Return an exported file, opened; None where the path is none of one.

    Raises:
        SettingsError: onnxruntime is not installed, or there is no such file.
        StorageError: It is damaged, or regraft did not write it.
    """
    if path.suffix.lower() != ".onnx" or path.is_dir():
        return None
    from regraft.exports.running.session import SealedSession

    return SealedSession(path, threads=threads)


def class_predictor(session: SealedSession, threads: int | None, **asked: Any) -> SealedPredictor:
    """Return what predicts the class, or the labels, of images."""
    from regraft.exports.running.predictor import SealedPredictor

    return SealedPredictor(session, threads=threads, **asked)


def mask_predictor(session: SealedSession) -> SealedMaskPredictor:
    """Return what predicts masks."""
    from regraft.exports.running.predictor import SealedMaskPredictor

    return SealedMaskPredictor(session)
