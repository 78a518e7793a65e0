"""The public door: the names that are promised, each of them there, whichever room was entered first."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

import regraft

PUBLIC = [
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


def test_all_is_sorted_and_is_what_the_documentation_promises() -> None:
    assert regraft.__all__ == sorted(regraft.__all__) == PUBLIC
    assert dir(regraft) == sorted([*PUBLIC, "__version__"])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name: str) -> None:
    value = getattr(regraft, name)
    assert callable(value)
    assert value.__doc__
    assert value.__name__ == name


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        regraft.trian  # noqa: B018


ROOMS = ("regraft.train.train", "regraft.evaluate.evaluate", "regraft.cli.main", "regraft.pipeline")


def test_functions_stay_functions_after_any_order_of_imports() -> None:
    checks = "\n".join(
        f"forget(); import {first}; import {second}\n"
        "assert type(regraft.train).__name__ == type(regraft.evaluate).__name__ == 'function'\n"
        "from regraft import evaluate, train; assert callable(train) and callable(evaluate)"
        for first, second in itertools.permutations(ROOMS, 2)
    )
    code = f"""
import sys, regraft
def forget():
    global regraft
    for name in [name for name in sys.modules if name.split(".")[0] == "regraft"]:
        del sys.modules[name]
    import regraft
{checks}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
