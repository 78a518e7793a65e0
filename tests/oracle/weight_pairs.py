"""Pairs of a network of another library and one that regraft builds, each narrow and with seeded random weights.

`PAIRS` is what `test_weights_matrix` runs through: a file as the library writes it, the library's own output, and what
must come of it: the same numbers, or a refusal that says why.
"""

from __future__ import annotations

from tests.oracle.keras_pairs import KERAS_PAIRS
from tests.oracle.open_clip_pairs import OPEN_CLIP_PAIRS
from tests.oracle.smp_pairs import SMP_PAIRS
from tests.oracle.torchvision_pairs import TORCHVISION_PAIRS
from tests.oracle.transformers_pairs import TRANSFORMERS_PAIRS
from tests.oracle.weight_pair import Pair
from tests.oracle.weight_pairs_more import MORE_PAIRS
from tests.oracle.wrapped_pairs import WRAPPED_PAIRS

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
