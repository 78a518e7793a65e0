"""Pairs of a network of another library and one that regraft builds, each narrow and with seeded random weights.

`PAIRS` is what `test_weights_matrix` runs through: a file as the library writes it, the library's own output, and what
must come of it: the same numbers, or a refusal that says why.
"""

from __future__ import annotations

from tests.oracle.pairs.keras_pairs import KERAS_PAIRS
from tests.oracle.pairs.open_clip_pairs import OPEN_CLIP_PAIRS
from tests.oracle.pairs.smp_pairs import SMP_PAIRS
from tests.oracle.pairs.torchvision_pairs import TORCHVISION_PAIRS
from tests.oracle.pairs.transformers_pairs import TRANSFORMERS_PAIRS
from tests.oracle.pairs.weight_pair import Pair
from tests.oracle.pairs.weight_pairs_more import MORE_PAIRS
from tests.oracle.pairs.wrapped_pairs import WRAPPED_PAIRS

__all__ = ["PAIRS"]

PAIRS: list[Pair] = [
    *TRANSFORMERS_PAIRS,
    *TORCHVISION_PAIRS,
    *OPEN_CLIP_PAIRS,
    *WRAPPED_PAIRS,
    *SMP_PAIRS,
    *KERAS_PAIRS,
    *MORE_PAIRS,
]
