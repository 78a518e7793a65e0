"""Graft new heads and foreign weights onto pretrained vision models, fine-tune them in stages, and know what took.

The names below are the whole public face; everything else may change. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Augment": "regraft.data.augment",
    "Callback": "regraft.train.callbacks",
    "EarlyStopping": "regraft.plan.stages",
    "Head": "regraft.models.head",
    "Plateau": "regraft.plan.stages",
    "RegraftError": "regraft.errors",
    "Schedule": "regraft.plan.stages",
    "Stage": "regraft.plan.stages",
    "adapt": "regraft.models.surgery",
    "bayesian_predict": "regraft.models.segment.bayes",
    "build_model": "regraft.models.build",
    "cross_validate": "regraft.folds",
    "cut": "regraft.models.cut",
    "evaluate": "regraft.evaluate.evaluate",
    "find_lr": "regraft.train.find_lr",
    "graft": "regraft.models.graft",
    "load_model": "regraft.models.folder",
    "make_plan": "regraft.plan.make",
    "match_weights": "regraft.models.match",
    "open_data": "regraft.data.open",
    "predict": "regraft.evaluate.predict",
    "predict_masks": "regraft.evaluate.masks",
    "predict_tiled": "regraft.models.segment.tiles",
    "read_mask": "regraft.data.masks",
    "read_weights": "regraft.weights.file",
    "replace_layer": "regraft.models.replace",
    "resume": "regraft.pipeline",
    "resume_folds": "regraft.folds",
    "run_recipe": "regraft.pipeline",
    "surgery_plan": "regraft.models.preview",
    "tap": "regraft.models.cut",
    "train": "regraft.train.train",
    "write_report": "regraft.report.build",
}

if TYPE_CHECKING:
    from regraft.data.augment import Augment
    from regraft.data.masks import read_mask
    from regraft.data.open import open_data
    from regraft.errors import RegraftError
    from regraft.evaluate.evaluate import evaluate
    from regraft.evaluate.masks import predict_masks
    from regraft.evaluate.predict import predict
    from regraft.folds import cross_validate, resume_folds
    from regraft.models.build import build_model
    from regraft.models.cut import cut, tap
    from regraft.models.folder import load_model
    from regraft.models.graft import graft
    from regraft.models.head import Head
    from regraft.models.match import match_weights
    from regraft.models.preview import surgery_plan
    from regraft.models.replace import replace_layer
    from regraft.models.segment.bayes import bayesian_predict
    from regraft.models.segment.tiles import predict_tiled
    from regraft.models.surgery import adapt
    from regraft.pipeline import resume, run_recipe
    from regraft.plan.make import make_plan
    from regraft.plan.stages import EarlyStopping, Plateau, Schedule, Stage
    from regraft.report.build import write_report
    from regraft.train.callbacks import Callback
    from regraft.train.find_lr import find_lr
    from regraft.train.train import train
    from regraft.weights.file import read_weights

__all__ = [
    "Augment",
    "Callback",
    "EarlyStopping",
    "Head",
    "Plateau",
    "RegraftError",
    "Schedule",
    "Stage",
    "adapt",
    "bayesian_predict",
    "build_model",
    "cross_validate",
    "cut",
    "evaluate",
    "find_lr",
    "graft",
    "load_model",
    "make_plan",
    "match_weights",
    "open_data",
    "predict",
    "predict_masks",
    "predict_tiled",
    "read_mask",
    "read_weights",
    "replace_layer",
    "resume",
    "resume_folds",
    "run_recipe",
    "surgery_plan",
    "tap",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Door(ModuleType):
    """Keeps `regraft.train` and `regraft.evaluate` the functions, whichever room of that name is imported first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
