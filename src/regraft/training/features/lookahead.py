"""What later stages will want of the images, so that one pass through the frozen part serves them too."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import fx, nn

from regraft.compute.program import SplitProgram, prefix_key, split_program
from regraft.plan.freezing.freeze import freeze
from regraft.settings.stage import Stage

__all__ = ["Wanted", "look_ahead"]


@dataclass(frozen=True)
class Wanted:
    """Features that a later stage reads and that the present frozen part passes on its way.

    Attributes:
        stage: The number of the last stage that reads them.
        prefix: The frozen part of that stage, which ends there.
        key: Its `prefix_key`.
        boundary: Where it ends, as names of nodes in the model's graph.
        splits: Of which splits: `val`, and `train` where the stage does not augment.
    """

    stage: int
    prefix: fx.GraphModule
    key: str
    boundary: tuple[str, ...]
    splits: frozenset[str]


def look_ahead(
    model: nn.Module, stages: Sequence[Stage], present: int, program: SplitProgram, trained: Collection[str]
) -> list[Wanted]:
    """Return the features of later stages that the present pass can compute: no stage until then trains their layers.

    Args:
        model: The model; it is not changed.
        stages: All stages of the plan.
        present: The number of the present stage.
        program: The model as cut for the present stage.
        trained: The layers that the present stage and those before it train.
    """
    if program.prefix is None:
        return []
    trial, layers = copy.deepcopy(model), set(trained)
    still = _nodes(program.prefix)
    wanted: dict[str, Wanted] = {}
    for number in range(present + 1, len(stages)):
        stage = stages[number]
        frozen = freeze(trial, stage.selectors, bn=stage.bn, trained=layers)
        layers |= set(frozen.layers)
        later = split_program(trial)
        if later.prefix is None:
            break
        nodes = _nodes(later.prefix)
        if nodes <= still and _takes_the_same(stages[present], stage):
            key = prefix_key(later.prefix)
            before = wanted[key].splits if key in wanted else frozenset()
            wanted[key] = Wanted(number, later.prefix, key, later.boundary, before | stage_splits(stage))
        still &= nodes
    return list(wanted.values())


def _takes_the_same(present: Stage, later: Stage) -> bool:
    """Return whether two stages compute at the same image sizes and precision."""
    one, other = ((stage.size, stage.train_size, stage.precision) for stage in (present, later))
    return one == other


def stage_splits(stage: Stage) -> frozenset[str]:
    """Return the splits whose features are the same in every epoch of a stage."""
    varies = stage.mixes or (stage.augment is not None and not stage.augment.is_identity)
    return frozenset({"val"} if varies else {"train", "val"})


def _nodes(prefix: fx.GraphModule) -> set[str]:
    return {node.name for node in prefix.graph.nodes if node.op not in ("placeholder", "output", "get_attr")}
