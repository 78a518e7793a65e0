"""What the layers of known networks are called: one table for each family, one column of names for each dialect.

Each line reads `name of a layer = address`. `<s>` and `<b>` in a name are the stage and the block, which are counted
through the whole network as `<block>`; `<n>` is counted as `<n>`; `<i>` stands for itself (a, b, c for 1, 2, 3).
Without more, a mark is a number; `<b:a>` is a letter and maybe a number (`a`, `b12`), `<i:123>` one of these
characters, `<n:?>` a number that may be absent (`conv2d`, `conv2d_1`); anything with a star is a pattern of its own.
`*` stands for one component of a path. In an address, `<kind>` is the kind of the layer and `<at>` its place in the
order of execution among the layers of its line; `<i+1>` is one more than the mark says. A line may end with `if` or
`unless` and a name that must, or must not, exist. Behind the dialect's name may stand `sparse` (gaps in its numbers
mean nothing), `unscaled` (its normalisations have no scale), `unbiased` (its classifier has no bias), `own` (where both
sides have its names, these are compared as they are), `trunk` (a file may hold `features` alone, and then its names
lack that) and `begins:S.B` (its networks begin with that stage and block; without it both are 0).
"""

from __future__ import annotations

from regraft.weights.naming.tables.classic_cnns import CLASSIC_CNNS
from regraft.weights.naming.tables.inceptions import INCEPTIONS
from regraft.weights.naming.tables.mobile_cnns import MOBILE_CNNS
from regraft.weights.naming.tables.modern_cnns import MODERN_CNNS
from regraft.weights.naming.tables.vision_transformers import VISION_TRANSFORMERS

__all__ = ["TABLES"]

_CLASSIFIER = "(predictions|probs|fc1000|logits|Logits|fc|classifier|head|top|dense(_<x>)?|conv_preds) = classifier"

TABLES: dict[str, str] = {
    name: text.replace("{classifier}", _CLASSIFIER)
    for tables in (CLASSIC_CNNS, MOBILE_CNNS, INCEPTIONS, MODERN_CNNS, VISION_TRANSFORMERS)
    for name, text in tables.items()
}
