"""Which engine computes a prediction. Needs no torch.

Measured with EfficientNet-lite0 on two processors: a command that imports torch, torchvision and timm begins to predict
seconds later than one that does not, and from then on both compute an image in about the same time; making the
export takes longer than thousands of images. So nothing is made unless it is asked for, and what is there is used where
few images are named.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regraft.errors import SettingsError, did_you_mean
from regraft.exports.engines.cached import found_export, made_export
from regraft.exports.running.session import SealedSession
from regraft.run.file_suffix import EXPORTED

__all__ = ["ENGINES", "MOST_IMAGES", "Wish", "exported_session", "is_export"]

ENGINES = ("auto", "onnx", "torch")
MOST_IMAGES = 256  # of which onnxruntime on the CPU is sure to be done first
_log = logging.getLogger("regraft")


@dataclass(frozen=True)
class Wish:
    """What is asked of an engine.

    Attributes:
        engine: auto, onnx or torch.
        threads: None takes all processors.
        num_images: Counts the images; None where they are not known beforehand.
        of_torch: What was asked for that torch alone does, by name; None and False were not given.
    """

    engine: str
    threads: int | None = None
    num_images: Callable[[], int | None] = lambda: None
    of_torch: Mapping[str, object] = field(default_factory=dict)


def is_export(model: object) -> bool:
    """Return whether a path names an exported file."""
    return isinstance(model, str | Path) and Path(model).suffix.lower() in EXPORTED and not Path(model).is_dir()


def exported_session(run: str | Path, wish: Wish) -> SealedSession | None:
    """Return the export of a run that is to compute what is wished for, opened; None for torch.

    Raises:
        SettingsError: There is no such engine, or it does not do what is wished for; or as `made_export` says.
    """
    if wish.engine not in ENGINES:
        raise SettingsError(
            f"There is no engine {wish.engine!r}{did_you_mean(wish.engine, ENGINES)}", ", ".join(ENGINES), ""
        )
    given = [name for name, value in wish.of_torch.items() if value is not None and value is not False]
    if wish.engine == "onnx":
        if given:
            raise SettingsError(
                f"{' and '.join(given)} was given, and the engine onnx sees the whole image once, on the CPU in fp32.",
                "",
                "leave it out, or take the engine torch",
            )
        _log.info("engine: onnxruntime, with the export of %s in the cache; it is made and proven once", run)
        return made_export(run, wish.threads)
    if wish.engine == "torch" or given or "torch" in sys.modules or importlib.util.find_spec("onnxruntime") is None:
        return None
    session = found_export(run, wish.threads)
    num = None if session is None else wish.num_images()
    if num is None or num > MOST_IMAGES:
        return None
    _log.info("engine: onnxruntime, with the export of %s in the cache (`--engine torch` for the network itself)", run)
    return session
