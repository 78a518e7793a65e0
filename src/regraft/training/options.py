"""How a run is carried out, beside its model, its plan and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from regraft.compute.numerics import Numerics
from regraft.data.cache.cache import CACHES, CacheMode
from regraft.errors import SettingsError
from regraft.settings.monitor import DEFAULT_MONITOR, mode_of
from regraft.training.features.feature_pass import FeatureCache
from regraft.training.loggers.registry import DEFAULT_LOGGERS

__all__ = ["RunKeywords", "RunOptions"]


class RunKeywords(TypedDict, total=False):
    """The fields of `RunOptions` as keywords."""

    seed: int
    batch_size: int
    monitor: str
    mode: str | None
    numerics: Numerics | None
    save_steps: int | None
    cache: CacheMode
    feature_cache: FeatureCache
    log: Sequence[str]


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        seed: Of order, augmentation and dropout, each a function of it.
        batch_size: Images a step, where a stage does not say.
        monitor: The metric of an epoch that selects the best.
        mode: `min` or `max`; None knows it from the metric's name.
        numerics: Device, precision, layout, threads; None chooses for this machine.
        save_steps: Save after every so many steps too.
        cache: Where decoded pixels are kept.
        feature_cache: `off`, `auto`, or the number of views of augmented images.
        log: Loggers by name.

    Raises:
        SettingsError: There is no such cache.
    """

    seed: int = 0
    batch_size: int = 32
    monitor: str = DEFAULT_MONITOR
    mode: str | None = None
    numerics: Numerics | None = None
    save_steps: int | None = None
    cache: CacheMode = "auto"
    feature_cache: FeatureCache = "auto"
    log: Sequence[str] = DEFAULT_LOGGERS

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise SettingsError(f"Unknown cache {self.cache!r}.", f"one of: {', '.join(CACHES)}", "set `cache: auto`")
        views = self.feature_cache if isinstance(self.feature_cache, int) else 0
        if self.feature_cache not in ("off", "auto") and (views < 1 or isinstance(views, bool)):
            raise SettingsError(
                f"The feature cache is {self.feature_cache!r}.",
                "`off`, `auto`, or a number of views of each augmented image, at least 1",
                "set `feature_cache: auto`",
            )

    @property
    def better(self) -> str:
        """`min` or `max`: which values of the monitor are better."""
        return self.mode or mode_of(self.monitor)

    def settings(self, numerics: Numerics) -> dict[str, Any]:
        """Return their part of a recipe, as plain data, in the order of recipe.yaml but for the data's own keys.

        Args:
            numerics: What was chosen to compute with.
        """
        views = self.feature_cache if isinstance(self.feature_cache, str) else {"views": self.feature_cache}
        return {
            "seed": self.seed,
            "monitor": self.monitor,
            "mode": self.better,
            "numerics": numerics.to_dict(),
            "save_steps": self.save_steps,
            "log": list(self.log),
            "feature_cache": views,
        }
