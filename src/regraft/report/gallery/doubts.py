"""Labels that the checkup of a run doubts, as marks on the images of its report."""

from __future__ import annotations

from pathlib import Path

from regraft.report.evidence import Evidence, parts
from regraft.report.html.markup import Html, html

__all__ = ["Doubts"]

_KIND = "label-error"  # out-of-sample probabilities contradict the label


class Doubts:
    """The labels in doubt, by file.

    Args:
        evidence: Of the run; its checkup looks at training and validation images.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.is_checked = bool(evidence.check)
        root = str(evidence.check.get("root") or "")
        self._suggestions = {
            str(Path(root, str(item.get("path", "")))): str(item.get("suggestion") or "")
            for issue in parts(evidence.check, "issues")
            if issue.get("kind") == _KIND
            for item in parts(issue, "items")
        }

    def mark(self, file: Path) -> Html:
        """Return a mark for an image whose label is in doubt, with the class that fits better; else nothing."""
        suggestion = self._suggestions.get(str(file))
        if suggestion is None:
            return Html("")
        return html('<span class="doubt">label in doubt{}</span>', f": perhaps {suggestion}" if suggestion else "")

    def note(self, split: str) -> str:
        """Return which of the images of a split can be marked."""
        if not self.is_checked:
            return "The labels were not checked in this run, so none is marked as doubtful."
        if split in ("train", "val"):
            return (
                "Marked: labels that the other images contradict, by probabilities from models that did not see them."
            )
        return (
            "Marked: training images whose label the other images contradict. The labels of these images themselves "
            "were not checked, as only those of training and validation are."
        )
