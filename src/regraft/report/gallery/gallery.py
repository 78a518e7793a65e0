"""The images of a split: the surest errors, those of the most confused classes, and a few that are right."""

from __future__ import annotations

from regraft.report.evidence import Evaluated, Evidence
from regraft.report.gallery.doubts import Doubts
from regraft.report.gallery.heat_maps import heat_maps
from regraft.report.gallery.pairs import confused_pairs
from regraft.report.gallery.picture import correct_picture, wrong_picture
from regraft.report.html.markup import Html, html, join

__all__ = ["gallery"]


def gallery(result: Evaluated, evidence: Evidence) -> Html:
    """Return the images of a split that was evaluated by class or by label."""
    doubts = Doubts(evidence)
    parts = (_errors(result, evidence, doubts), confused_pairs(result, evidence, doubts), _correct(result, evidence))
    return html("{}{}{}{}", *parts, heat_maps(result))


def _errors(result: Evaluated, evidence: Evidence, doubts: Doubts) -> Html:
    if not result.num_wrong:
        absent = "The predictions for single images were not recorded."
        text = "Every image was classified correctly." if result.num_rows else absent
        return html("<h4>Errors</h4><p>{}</p>", text)
    root = str(evidence.splits.get("source") or "")
    shown = (
        f"all {result.num_wrong}"
        if result.num_wrong <= len(result.worst)
        else f"{len(result.worst)} of {result.num_wrong:,}"
    )
    return html(
        '<h4>Worst errors <small>({}, the surest first)</small></h4><div class="pictures">{}</div>',
        shown,
        join(wrong_picture(row, root, doubts) for row in result.worst),
    )


def _correct(result: Evaluated, evidence: Evidence) -> Html:
    """Return a few images that were classified correctly, of each class in turn."""
    if not result.right:
        return Html("")
    root = str(evidence.splits.get("source") or "")
    return html(
        '<h4>Correct predictions <small>({} of {:,}, from each class)</small></h4><div class="pictures small">{}</div>',
        len(result.right),
        result.num_right,
        join(correct_picture(row, root) for row in result.right),
    )
