"""`regraft predict` by onnxruntime: an exported file, or a run's export in the cache; the same rows as by torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cli.effects import say_unused
from regraft.cli.masks import refuse_options

if TYPE_CHECKING:
    from regraft.exports.running.predictor import SealedMaskPredictor, SealedPredictor
    from regraft.exports.running.session import SealedSession

__all__ = ["class_predictor", "mask_predictor", "opened_session"]


def opened_session(
    run: Path,
    inputs: Sequence[str],
    engine: str,
    threads: int | None,
    asked: tuple[Mapping[str, object], str, str],
) -> SealedSession | None:
    """Return what onnxruntime is to compute, opened: an exported file, or a run's export in the cache; None for torch.

    Args:
        run: What was named: a file, a run or a model folder.
        inputs: The images.
        engine: auto, onnx or torch.
        threads: None takes all processors.
        asked: Options that torch alone reads, by name; the device; the precision.

    Raises:
        SettingsError: onnxruntime is not installed, there is no such file or engine, or it does not do what is asked.
        StorageError: The file is damaged or was changed, or regraft did not write it.
    """
    from regraft.exports.engines.engine import Wish, exported_session, is_export
    from regraft.exports.running.session import SealedSession

    options, device, precision = asked
    computing = {"--device": device, "--precision": precision}
    if not is_export(run):
        fits = {"--device": ("auto", "cpu"), "--precision": ("auto", "fp32")}
        others = {name: value for name, value in computing.items() if value not in fits[name]}
        return exported_session(run, Wish(engine, threads, lambda: _number(inputs), {**options, **others}))
    session = SealedSession(run, threads=threads)
    one, *views = options.items()
    refuse_options(dict([one]), f"{str(run)!r} is an export, which holds one network")
    refuse_options(dict(views), f"{str(run)!r} is an export, which looks at the whole image once")
    refuse_options({"--engine torch": engine == "torch"}, f"{str(run)!r} is an export, which its own runtime computes")
    say_unused(
        {name: None if value == "auto" else value for name, value in computing.items()},
        "an export is computed on the CPU as it was written",
    )
    return session


def _number(inputs: Sequence[str]) -> int | None:
    from regraft.data.inputs import list_named

    return None if list(inputs) == ["-"] else len(list_named(inputs)[0])


def class_predictor(session: SealedSession, threads: int | None, **asked: Any) -> SealedPredictor:
    """Return what predicts the class, or the labels, of images."""
    from regraft.exports.running.predictor import SealedPredictor

    return SealedPredictor(session, threads=threads, **asked)


def mask_predictor(session: SealedSession) -> SealedMaskPredictor:
    """Return what predicts masks."""
    from regraft.exports.running.predictor import SealedMaskPredictor

    return SealedMaskPredictor(session)
