"""Graft new heads and foreign weights onto pretrained vision models, fine-tune them in stages, and know what took.

The names below are the whole public face; everything else may change. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regraft.version import __version__ as __version__

if TYPE_CHECKING:
    from regraft.checkup.check import check
    from regraft.checkup.checkup import Checkup
    from regraft.checkup.issue import Issue, Item
    from regraft.comparison.compare import Comparison, compare
    from regraft.compute.numerics import Numerics, choose_numerics
    from regraft.conversion import Conversion, convert
    from regraft.data.cache.contents import CacheContents, clear_cache, list_cache
    from regraft.data.dataset import DataSet
    from regraft.data.masks.masks import read_mask
    from regraft.data.open import open_data
    from regraft.errors import (
        DataError,
        DivergedError,
        LostProcessError,
        OutOfMemoryError,
        RegraftError,
        SettingsError,
        StoppedError,
        StorageError,
        WeightsError,
    )
    from regraft.evaluation.evaluate import evaluate
    from regraft.evaluation.results.mask import MaskPrediction
    from regraft.evaluation.results.prediction import Prediction
    from regraft.explanation.explain import explain
    from regraft.explanation.record import Explanation
    from regraft.exports.engines.predict import predict, predict_masks
    from regraft.exports.export import Export, export
    from regraft.folds import Folds, cross_validate, resume_folds
    from regraft.incremental.add_class import Addition, add_class
    from regraft.incremental.collect import keep_statistics
    from regraft.inspection import Inspection, inspect
    from regraft.models.describe.slots import slots_of
    from regraft.models.graft.graft import graft
    from regraft.models.graft.keras_tensors import keras_tensors
    from regraft.models.graft.match import match_weights
    from regraft.models.layers.cut import cut, tap
    from regraft.models.layers.layers import Layer, list_layers
    from regraft.models.layers.replace import replace_layer
    from regraft.models.networks.names import list_models
    from regraft.models.segment.bayes import BayesianMaps, bayesian_predict
    from regraft.models.segment.tiles import predict_tiled
    from regraft.models.store.folder import load_model
    from regraft.models.surgery.preview import SurgeryPlan, surgery_plan
    from regraft.models.surgery.surgery import adapt
    from regraft.models.zoo.build import build_model
    from regraft.models.zoo.catalogue import ModelRow, describe_models
    from regraft.models.zoo.pretrained import find_pretrained
    from regraft.pipeline import resume, run_recipe
    from regraft.plan.freezing.freeze import Freeze, freeze, unfreeze
    from regraft.plan.make import Plan, make_plan
    from regraft.ranking.rank import rank
    from regraft.ranking.ranking import RankedModel, Ranking
    from regraft.recipe.recipe import Recipe
    from regraft.recipe.text import read_recipe
    from regraft.report.build import write_report
    from regraft.run.folder import RunFolder, open_run
    from regraft.run.listing import RunRow, list_runs
    from regraft.serving.server import serve
    from regraft.settings.augment import Augment
    from regraft.settings.head import Head
    from regraft.settings.monitor import EarlyStopping, Plateau
    from regraft.settings.schedule import Schedule
    from regraft.settings.stage import Stage
    from regraft.sharing.pull import Pulled, pull
    from regraft.sharing.push import Pushed, push
    from regraft.sharing.signing import Signed, sign, verify
    from regraft.training.callbacks import Callback
    from regraft.training.preflight.find_lr import RangeTest, find_lr
    from regraft.training.train import train
    from regraft.weights.file import WeightFile, read_weights
    from regraft.weights.report import MatchReport
    from regraft.weights.writers.keras import write_keras
    from regraft.weights.writers.keras_tensor import KerasTensor

_HOMES = {
    "Addition": "regraft.incremental.add_class",
    "Augment": "regraft.settings.augment",
    "BayesianMaps": "regraft.models.segment.bayes",
    "Callback": "regraft.training.callbacks",
    "Checkup": "regraft.checkup.checkup",
    "Comparison": "regraft.comparison.compare",
    "Conversion": "regraft.conversion",
    "DataError": "regraft.errors",
    "DataSet": "regraft.data.dataset",
    "DivergedError": "regraft.errors",
    "EarlyStopping": "regraft.settings.monitor",
    "Explanation": "regraft.explanation.record",
    "Export": "regraft.exports.export",
    "Folds": "regraft.folds",
    "Freeze": "regraft.plan.freezing.freeze",
    "Head": "regraft.settings.head",
    "Inspection": "regraft.inspection",
    "Issue": "regraft.checkup.issue",
    "Item": "regraft.checkup.issue",
    "KerasTensor": "regraft.weights.writers.keras_tensor",
    "Layer": "regraft.models.layers.layers",
    "LostProcessError": "regraft.errors",
    "MaskPrediction": "regraft.evaluation.results.mask",
    "MatchReport": "regraft.weights.report",
    "ModelRow": "regraft.models.zoo.catalogue",
    "Numerics": "regraft.compute.numerics",
    "OutOfMemoryError": "regraft.errors",
    "Plan": "regraft.plan.make",
    "Plateau": "regraft.settings.monitor",
    "Prediction": "regraft.evaluation.results.prediction",
    "Pulled": "regraft.sharing.pull",
    "Pushed": "regraft.sharing.push",
    "RangeTest": "regraft.training.preflight.find_lr",
    "RankedModel": "regraft.ranking.ranking",
    "Ranking": "regraft.ranking.ranking",
    "Recipe": "regraft.recipe.recipe",
    "RegraftError": "regraft.errors",
    "RunFolder": "regraft.run.folder",
    "RunRow": "regraft.run.listing",
    "Schedule": "regraft.settings.schedule",
    "SettingsError": "regraft.errors",
    "Signed": "regraft.sharing.signing",
    "Stage": "regraft.settings.stage",
    "StoppedError": "regraft.errors",
    "StorageError": "regraft.errors",
    "SurgeryPlan": "regraft.models.surgery.preview",
    "WeightFile": "regraft.weights.file",
    "WeightsError": "regraft.errors",
    "adapt": "regraft.models.surgery.surgery",
    "add_class": "regraft.incremental.add_class",
    "bayesian_predict": "regraft.models.segment.bayes",
    "build_model": "regraft.models.zoo.build",
    "check": "regraft.checkup.check",
    "choose_numerics": "regraft.compute.numerics",
    "compare": "regraft.comparison.compare",
    "convert": "regraft.conversion",
    "cross_validate": "regraft.folds",
    "cut": "regraft.models.layers.cut",
    "describe_models": "regraft.models.zoo.catalogue",
    "evaluate": "regraft.evaluation.evaluate",
    "explain": "regraft.explanation.explain",
    "export": "regraft.exports.export",
    "find_lr": "regraft.training.preflight.find_lr",
    "find_pretrained": "regraft.models.zoo.pretrained",
    "freeze": "regraft.plan.freezing.freeze",
    "graft": "regraft.models.graft.graft",
    "inspect": "regraft.inspection",
    "keep_statistics": "regraft.incremental.collect",
    "keras_tensors": "regraft.models.graft.keras_tensors",
    "list_layers": "regraft.models.layers.layers",
    "list_models": "regraft.models.networks.names",
    "list_runs": "regraft.run.listing",
    "CacheContents": "regraft.data.cache.contents",
    "clear_cache": "regraft.data.cache.contents",
    "list_cache": "regraft.data.cache.contents",
    "load_model": "regraft.models.store.folder",
    "make_plan": "regraft.plan.make",
    "match_weights": "regraft.models.graft.match",
    "open_data": "regraft.data.open",
    "open_run": "regraft.run.folder",
    "predict": "regraft.exports.engines.predict",
    "predict_masks": "regraft.exports.engines.predict",
    "predict_tiled": "regraft.models.segment.tiles",
    "pull": "regraft.sharing.pull",
    "push": "regraft.sharing.push",
    "rank": "regraft.ranking.rank",
    "read_mask": "regraft.data.masks.masks",
    "read_recipe": "regraft.recipe.text",
    "read_weights": "regraft.weights.file",
    "replace_layer": "regraft.models.layers.replace",
    "resume": "regraft.pipeline",
    "resume_folds": "regraft.folds",
    "run_recipe": "regraft.pipeline",
    "serve": "regraft.serving.server",
    "sign": "regraft.sharing.signing",
    "slots_of": "regraft.models.describe.slots",
    "surgery_plan": "regraft.models.surgery.preview",
    "tap": "regraft.models.layers.cut",
    "train": "regraft.training.train",
    "unfreeze": "regraft.plan.freezing.freeze",
    "verify": "regraft.sharing.signing",
    "write_keras": "regraft.weights.writers.keras",
    "write_report": "regraft.report.build",
}

__all__ = [
    "Addition",
    "Augment",
    "BayesianMaps",
    "CacheContents",
    "Callback",
    "Checkup",
    "Comparison",
    "Conversion",
    "DataError",
    "DataSet",
    "DivergedError",
    "EarlyStopping",
    "Explanation",
    "Export",
    "Folds",
    "Freeze",
    "Head",
    "Inspection",
    "Issue",
    "Item",
    "KerasTensor",
    "Layer",
    "LostProcessError",
    "MaskPrediction",
    "MatchReport",
    "ModelRow",
    "Numerics",
    "OutOfMemoryError",
    "Plan",
    "Plateau",
    "Prediction",
    "Pulled",
    "Pushed",
    "RangeTest",
    "RankedModel",
    "Ranking",
    "Recipe",
    "RegraftError",
    "RunFolder",
    "RunRow",
    "Schedule",
    "SettingsError",
    "Signed",
    "Stage",
    "StoppedError",
    "StorageError",
    "SurgeryPlan",
    "WeightFile",
    "WeightsError",
    "adapt",
    "add_class",
    "bayesian_predict",
    "build_model",
    "check",
    "choose_numerics",
    "clear_cache",
    "compare",
    "convert",
    "cross_validate",
    "cut",
    "describe_models",
    "evaluate",
    "explain",
    "export",
    "find_lr",
    "find_pretrained",
    "freeze",
    "graft",
    "inspect",
    "keep_statistics",
    "keras_tensors",
    "list_cache",
    "list_layers",
    "list_models",
    "list_runs",
    "load_model",
    "make_plan",
    "match_weights",
    "open_data",
    "open_run",
    "predict",
    "predict_masks",
    "predict_tiled",
    "pull",
    "push",
    "rank",
    "read_mask",
    "read_recipe",
    "read_weights",
    "replace_layer",
    "resume",
    "resume_folds",
    "run_recipe",
    "serve",
    "sign",
    "slots_of",
    "surgery_plan",
    "tap",
    "train",
    "unfreeze",
    "verify",
    "write_keras",
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
