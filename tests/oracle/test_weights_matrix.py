"""Weights of other libraries in networks built here: the same numbers, or a refusal that says why; never silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.oracle.pairs.weight_pair import Pair, randomize
from tests.oracle.pairs.weight_pairs import PAIRS
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_the_numbers_are_the_librarys_or_it_is_refused(pair: Pair, tmp_path: Path) -> None:
    found = outcome(pair, tmp_path)
    if pair.refused:
        assert "refused" in found, found
        assert pair.refused in found
    else:
        assert found.startswith("exact"), found


def outcome(pair: Pair, folder: Path) -> str:
    """Return `exact`, with the difference; `refused`, with why; or `WRONG`, with the difference."""
    torch.manual_seed(0)
    source = randomize(pair.source(), pair.seed)
    path = pair.write(source, folder)
    model = randomize(pair.build(), 1)
    report = match_weights(read_weights(path), model, **pair.options)
    try:
        graft(model, report.require(pair.require, adjust=pair.adjust), require=None, adjust=pair.adjust)
    except WeightsError as error:
        return f"refused: {error}"
    off = _difference(pair, source, model.eval())
    return f"{'exact' if off <= pair.tolerance else 'WRONG'} {off:.1e}"


def _difference(pair: Pair, source: nn.Module, model: nn.Module) -> float:
    x = torch.randn((2, 3, pair.size, pair.size), generator=torch.Generator().manual_seed(pair.seed))
    with torch.no_grad():
        theirs, ours = pair.output(source, x), pair.own_output(model, x)
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    return float((theirs - ours).abs().max() / theirs.abs().max())
