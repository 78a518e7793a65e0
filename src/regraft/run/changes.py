"""Changes to a run after it began: found, refused or recorded, one by one and by key.

A key is the dotted one of `--set`, such as `stages.1.lr`; `--allow-change` takes it too, or the start of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft import commit
from regraft.errors import SettingsError
from regraft.run.folder import RunFolder

__all__ = [
    "ABSENT",
    "Changes",
    "RunPosition",
    "accepted_recipe",
    "changed_environment",
    "differences",
    "is_of_network",
    "record_change",
    "require_allowed",
]

ABSENT = "(none)"
Changes = Mapping[str, tuple[Any, Any]]

# What the weights, the pixels and the comparisons of a run rest on, and why it cannot be another in the same run.
_ROWS = "the run keeps the images, splits and labels it started with"
_FIXED = {
    **{f"data.{key}": _ROWS for key in ("labels", "names", "masks", "class_table", "ignore")},
    **{f"data.{key}": _ROWS for key in ("fractions", "fold", "group")},
    "model": "the weights in the checkpoints are of this network",
    "head": "the weights in the checkpoints are of this head",
    "data.preprocess": "the network has learnt from pixels made this way",
    "data.resize": "the network has learnt from pixels made this way",
    "seed": "the order of the images and the augmentation follow from it",
    "monitor": "the best epoch so far was chosen by it",
    "mode": "the best epoch so far was chosen by it",
}
_USERS_OWN = re.compile(r"model\.args|stages\.\d+\.(lr|optimizer_args|class_weights)")  # places with keys of users' own
_FIXED_IN_STAGE = ("name", "train", "optimizer", "optimizer_args", "bn", "ema", "image_size", "precision", "start")
_FREE = ("log",)  # who is told what happens makes no difference to it
_NO_MATTER = ("python", "platform")  # the bits of a run do not hang on them
_PLACES = ("data.source", "data.labels", "data.names", "data.masks", "data.class_table", "model.weights")
_LENGTH = ("epochs", "steps", "early_stopping")


@dataclass(frozen=True)
class RunPosition:
    """Where a run stands: the stage's index, whether it has begun, and whether it has ended."""

    stage: int
    begun: bool
    ended: bool


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two resolved recipes differ, as key -> (before, after).

    A setting that only one of them knows (another version of regraft wrote it) is no difference; an item of a list, or
    an entry that users name themselves, is.
    """
    return dict(_differences("", before, after))


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        own_keys = _USERS_OWN.fullmatch(path) is None
        shared = [key for key in before if key in after] if own_keys else list({**before, **after})
        for key in shared:
            yield from _differences(_join(path, key), before.get(key, ABSENT), after.get(key, ABSENT))
    elif path == "stages":
        for index in range(max(len(before), len(after))):
            pair = [items[index] if index < len(items) else ABSENT for items in (before, after)]
            yield from _differences(_join(path, index), *pair)
    elif before != after and not (path in _PLACES and _is_same_place(before, after)):
        yield path, (before, after)


def _is_same_place(before: Any, after: Any) -> bool:
    return isinstance(before, str) and isinstance(after, str) and os.path.realpath(before) == os.path.realpath(after)


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def require_allowed(
    run: RunFolder, changes: Changes, allowed: Sequence[str], position: RunPosition, stage_names: Sequence[str]
) -> None:
    """Refuse changes that nobody allowed, and those that no permission makes possible.

    Args:
        run: The run folder, for the texts.
        changes: What `differences` found.
        allowed: Keys, or starts of keys; a stage is named by its number or its name.
        position: Where the run stands.
        stage_names: The names of the stages as they were.

    Raises:
        SettingsError: With one line for each change that cannot be made, or was not allowed.
    """
    numbered = [_numbered(key, stage_names) for key in allowed]
    unknown = [key for key, plain in zip(allowed, numbered, strict=True) if not any(_covers(plain, c) for c in changes)]
    if unknown:
        raise SettingsError(
            f"--allow-change {unknown[0]!r} allows a change that was not made.",
            "the key of a change: " + (", ".join(changes) or "there is none"),
            "make the change with --set or --recipe as well, or leave --allow-change out",
        )
    impossible = [
        line for key, pair in changes.items() for line in _impossible(key, pair, changes, position, stage_names)
    ]
    if impossible:
        raise SettingsError(
            f"The run {str(run.path)!r} cannot be resumed with these changes.",
            "some settings are those of a whole run, or of a stage that has begun",
            "take them back, add a further stage, or train a new run from this one's model",
            details=impossible,
        )
    missing = [key for key in changes if not any(_covers(plain, key) for plain in (*numbered, *_FREE))]
    if missing:
        flags = " ".join(f"--allow-change {key}" for key in missing)
        raise SettingsError(
            f"The settings differ from those that the run {str(run.path)!r} has.",
            "a run keeps its settings, so that it ends in the result that it would have had",
            f"undo the changes, or accept them: add `{flags}` to the command",
            details=[f"{key}: {_shown(changes[key][0])} in the run, {_shown(changes[key][1])} now" for key in missing],
        )


def is_of_network(key: str) -> bool:
    """Return whether a setting is part of the network that is trained, or of the images that it sees."""
    return any(_covers(fixed, key) for fixed in _FIXED if fixed.split(".")[0] in ("model", "head", "data"))


def _impossible(
    key: str, pair: tuple[Any, Any], changes: Changes, position: RunPosition, names: Sequence[str]
) -> Iterator[str]:
    for fixed, reason in _FIXED.items():
        if _covers(fixed, key):
            yield f"{key}: {_shown(pair[0])} in the run, {_shown(pair[1])} now; {reason}"
    parts = key.split(".")
    if parts[0] != "stages" or len(parts) < 2:
        return
    index = int(parts[1])
    has_begun = index < position.stage or (index == position.stage and position.begun)
    if not has_begun:
        return
    name = names[index] if index < len(names) else parts[1]
    longer = any(_covers(f"stages.{index}.{word}", other) for word in _LENGTH for other in changes)
    if index < position.stage or (position.ended and not longer):
        yield f"{key}: the stage {name!r} has ended, so the change would do nothing"
    elif len(parts) == 2:
        yield f"{key}: the stage {name!r} has begun and cannot be taken out"
    elif position.ended and parts[2] == "interpolate" and pair[1]:
        yield f"{key}: the stage {name!r} has ended; the weights that it began with are not kept"
    elif position.ended and parts[2] == "soup" and pair[1]:
        yield f"{key}: the stage {name!r} has ended; the weights of its epochs are not kept"
    elif parts[2] in _FIXED_IN_STAGE:
        yield f"{key}: the stage {name!r} has begun; what it trains, and by what, stays"


def _covers(allowed: str, key: str) -> bool:
    return key == allowed or key.startswith(allowed + ".")


def _numbered(key: str, names: Sequence[str]) -> str:
    """Return `stages.head.lr` as `stages.0.lr`."""
    parts = key.split(".")
    if parts[0] == "stages" and len(parts) > 1 and parts[1] in names:
        parts[1] = str(list(names).index(parts[1]))
    return ".".join(parts)


def _shown(value: Any) -> str:
    text = value if value == ABSENT else commit.as_json(value)
    return text if len(text) <= 60 else text[:57] + "..."


def record_change(run: RunFolder, why: str, step: int, changes: Changes, *, recipe: str | None = None) -> None:
    """Add to the run's changes.json, once.

    Args:
        run: The run folder.
        why: `asked`, `out of memory` or `environment`.
        step: The step that the run stands at.
        changes: What was before and what is after, by key.
        recipe: The text that recipe.yaml is about to get.

    Raises:
        StorageError: It cannot be written, or what is there is damaged.
    """
    entries = _entries(run)
    entry = {
        "why": why,
        "step": step,
        "changes": {key: {"before": pair[0], "after": pair[1]} for key, pair in changes.items()},
        "recipe_sha256": _digest(recipe) if recipe is not None else None,
    }
    if entries and {**entries[-1], "time": None} == {**entry, "time": None}:
        return  # of a try that ended before its next checkpoint
    commit.write_json(run.changes, {"changes": [*entries, {**entry, "time": time.strftime("%Y-%m-%d %H:%M:%S")}]})


def changed_environment(run: RunFolder, now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences between this environment and the run's last one: {name: (before, now)}."""
    known = dict(run.read(run.environment) or {})
    for entry in _entries(run):
        if entry["why"] == "environment":
            known |= {key: pair["after"] for key, pair in entry["changes"].items()}
    matter = [key for key in {**known, **now} if key not in _NO_MATTER]
    pairs = {key: (known.get(key, ABSENT), now.get(key, ABSENT)) for key in matter}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def accepted_recipe(run: RunFolder) -> bool:
    """Return whether recipe.yaml, as it is, was written for a recorded change, and not by hand."""
    digests = [entry["recipe_sha256"] for entry in _entries(run) if entry.get("recipe_sha256")]
    return bool(digests) and digests[-1] == _digest(run.recipe.read_text(encoding="utf-8"))


def _entries(run: RunFolder) -> list[dict[str, Any]]:
    return list((run.read(run.changes) or {"changes": []})["changes"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
