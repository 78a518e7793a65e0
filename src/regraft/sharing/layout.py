"""What a shared model folder holds beside that of a run, by name: nothing else is uploaded, nothing else is fetched."""

from __future__ import annotations

from regraft import commit
from regraft.models.store.folder import CONFIG, PROBES, WEIGHTS
from regraft.models.store.trust_file import TRUST
from regraft.sharing.signing import SIGNATURE

__all__ = ["CARD", "KNOWN", "LARGEST_TEXT", "NEEDED", "RECIPE", "REPORT", "RESULTS"]

CARD = "README.md"
RECIPE, RESULTS, REPORT = "training/recipe.yaml", "training/results.json", "training/report.html"
NEEDED = (CONFIG, WEIGHTS, PROBES)
KNOWN = frozenset({*NEEDED, TRUST, CARD, commit.MANIFEST, SIGNATURE, RECIPE, RESULTS, REPORT})
LARGEST_TEXT = 64 << 20  # bytes of a file that is no tensors
