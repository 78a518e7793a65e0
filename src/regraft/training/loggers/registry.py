"""The loggers of a run, by name: metrics.csv always, TensorBoard, and the trackers that accelerate knows."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from regraft.errors import SettingsError, nearest
from regraft.run.folder import RunFolder
from regraft.training.callbacks import Callback
from regraft.training.loggers.batch_pictures import BatchPictures
from regraft.training.loggers.csv_log import CsvLog
from regraft.training.loggers.tensorboard import TensorBoard
from regraft.training.loggers.trackers import Tracker, known_trackers

__all__ = ["DEFAULT_LOGGERS", "build_loggers", "require_loggers"]

# Regraft writes TensorBoard's files itself: that needs no package, costs milliseconds, and talks to nobody.
DEFAULT_LOGGERS = ("tensorboard",)

_PACKAGES = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "wandb": "wandb",
}


def require_loggers(names: Sequence[str]) -> None:
    """Refuse, before a run begins, what was asked for and is not there.

    Raises:
        SettingsError: Unknown names, or packages that are not installed.
    """
    unknown = [name for name in names if name not in DEFAULT_LOGGERS and name not in known_trackers()]
    absent = [name for name in names if name not in unknown and not _is_installed(name)]
    if not unknown and not absent:
        return
    near = [(name, nearest(name, known_trackers())) for name in unknown]
    packages = " ".join(_PACKAGES[name].replace("_", "-") for name in absent)
    raise SettingsError(
        f"The run cannot be logged with {', '.join(map(repr, [*unknown, *absent]))}.",
        f"some of: {', '.join(known_trackers())}; each needs its package",
        f"`pip install {packages}`, or leave it out" if absent else "",
        details=[
            *(f"{name!r} is unknown" + (f"; did you mean {close}?" if close else "") for name, close in near),
            *(f"the package of {name!r} is not installed" for name in absent),
        ],
    )


def build_loggers(run: RunFolder, names: Sequence[str]) -> list[Callback]:
    """Return the loggers of a run, beside the user's callbacks."""
    made = [TensorBoard(run.tensorboard) if name == "tensorboard" else Tracker(name) for name in dict.fromkeys(names)]
    return [CsvLog(), BatchPictures(), *made]


def _is_installed(name: str) -> bool:
    """Return whether the logger's package is installed; a mere folder of its name, as some trackers make, is not it."""
    if name not in _PACKAGES:
        return True  # TensorBoard, and what the program itself has registered with accelerate
    spec = importlib.util.find_spec(_PACKAGES[name])
    return spec is not None and spec.origin is not None
