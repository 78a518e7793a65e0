"""The page of the site that lists every public name, by what it is for; mkdocstrings puts the docstrings there."""

from __future__ import annotations

import regraft

GROUPS = {
    "From images to a model": "open_data build_model adapt make_plan train evaluate predict write_report",
    "Settings": "Stage Schedule Augment Head EarlyStopping Plateau Recipe read_recipe run_recipe",
    "Weights": "read_weights match_weights graft find_pretrained convert keras_tensors write_keras KerasTensor "
    "WeightFile MatchReport Conversion slots_of",
    "Networks": "list_models describe_models list_layers load_model freeze unfreeze cut tap replace_layer surgery_plan "
    "Layer ModelRow Freeze SurgeryPlan Plan",
    "Images": "check read_mask DataSet Checkup Issue Item",
    "Runs": "resume open_run list_runs inspect RunFolder RunRow Inspection Callback choose_numerics Numerics find_lr "
    "RangeTest cross_validate resume_folds Folds",
    "Answers": "Prediction MaskPrediction predict_masks predict_tiled bayesian_predict BayesianMaps explain "
    "Explanation compare Comparison rank Ranking RankedModel export Export add_class keep_statistics Addition",
    "Errors": "RegraftError SettingsError DataError WeightsError DivergedError OutOfMemoryError StorageError "
    "LostProcessError StoppedError",
}
_FIRST = """# Python

`import regraft as rg` has these names; everything else may change.
"""


def page() -> str:
    """The page: a section for each group, an entry for each name."""
    parts = [_FIRST]
    groups = {group: names.split() for group, names in GROUPS.items()}
    known = {name for names in groups.values() for name in names}
    groups["More"] = [name for name in regraft.__all__ if name not in known]
    for group, names in groups.items():
        parts += [f"## {group}\n"] if names else []
        parts += [f"::: regraft.{name}\n" for name in names if name in regraft.__all__]
    return "\n".join(parts)
