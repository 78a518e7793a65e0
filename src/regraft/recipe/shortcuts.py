"""Short forms of `--set`: a setting of a stage without the stage's number, as `lr=1e-3` or `stages.*.lr=1e-3`.

Without a stage, a setting is that of the last stage with gradient descent, the one that fine-tunes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from regraft.recipe.defaults import fill
from regraft.settings.mistakes import fields_of
from regraft.settings.stage import Stage

__all__ = ["is_of_stages", "written_out"]

_OF_THE_RUN = ("batch_size", "image_size", "precision")  # stages have these too, and the run has them for all
_OF_STEPS = ("epochs", "steps", "lr")


def is_of_stages(assignment: str, sections: Mapping[str, FieldInfo]) -> bool:
    """Return whether `key=value` is about a stage, in its full or short form."""
    return bool(_stage_key(assignment, sections)) or assignment.strip().startswith("stages.")


def written_out(
    values: dict[str, Any],
    assignment: str,
    sections: Mapping[str, FieldInfo],
    base: Mapping[str, Any],
    only: Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """Expand an assignment to the full keys that it means.

    Args:
        values: The recipe; stages are filled in where it has none and one is meant.
        assignment: `key=value`, as `--set` has it.
        sections: The keys of a recipe.
        base: Where those stages come from.
        only: The names of the stages that will run; None: all.

    Returns:
        The assignments, and a note where a stage was chosen.
    """
    key, sign, value = assignment.partition("=")
    short = _stage_key(assignment, sections)
    if not sign or not (short or key.strip().startswith("stages.*.")):
        return [assignment], []
    fill(values, base)
    stages = values.get("stages")
    stages = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    if key.strip().startswith("stages.*."):
        rest = key.strip().removeprefix("stages.*.")
        return [f"stages.{number}.{rest}={value}" for number in range(len(stages))], []
    names = [str(stage.get("name")) for stage in stages]
    name, _, rest = short.partition(".")
    if name in names and rest:
        return [f"stages.{short}={value}"], []
    if name not in fields_of(Stage) or not stages:
        return [assignment], []
    below = values.get("defaults")
    kinds = [_optimizer(stage, below if isinstance(below, dict) else {}) for stage in stages]
    number = _last(kinds, names, only)
    return _in_stage(stages[number], kinds[number], number, short, value)


def _optimizer(stage: Mapping[str, Any], below: Mapping[str, Any]) -> str:
    """Return the optimizer of a stage, or of its recipe's defaults."""
    return str(stage.get("optimizer", below.get("optimizer", "auto")))


def _in_stage(stage: Mapping[str, Any], kind: str, number: int, key: str, value: str) -> tuple[list[str], list[str]]:
    """Set it in the chosen stage; a setting of gradient descent rules out L-BFGS."""
    made = [f"stages.{number}.{key}={value}"]
    note = f"{key} applies to the stage {stage.get('name')!r}; for all stages: `--set stages.*.{key}={value}`"
    if key in _OF_STEPS and kind == "auto":
        made.append(f"stages.{number}.optimizer=adamw")
        note += "; it trains with adamw instead of lbfgs, which has no epochs and no learning rate"
    return made, [note]


def _last(kinds: Sequence[str], names: Sequence[str], only: Sequence[str] | None) -> int:
    """Return the last stage that surely uses gradient descent; else the last that may; else the last."""
    indices = [index for index, name in enumerate(names) if only is None or name in only] or list(range(len(kinds)))
    for wanted in (lambda kind: kind not in ("auto", "lbfgs"), lambda kind: kind == "auto", lambda kind: True):
        matching = [index for index in indices if wanted(kinds[index])]
        if matching:
            return matching[-1]
    return indices[-1]


def _stage_key(assignment: str, sections: Mapping[str, FieldInfo]) -> str:
    """Return the key if it starts with a stage's setting or may start with a stage's name; else nothing."""
    key = assignment.partition("=")[0].strip()
    first, _, rest = key.partition(".")
    field = sections.get(first)
    if field is None:
        return key if (first in fields_of(Stage) and first not in _OF_THE_RUN) or rest else ""
    known = fields_of(field.annotation)  # a section may have a stage's name: head.epochs is not a setting of the head
    second = rest.partition(".")[0]
    return key if known and second in fields_of(Stage) and second not in known else ""
