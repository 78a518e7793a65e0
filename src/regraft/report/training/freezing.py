"""The proof of what was frozen and what moved."""

from __future__ import annotations

from typing import Any

from regraft.report.evidence import Evidence, Record, parts
from regraft.report.html.markup import Html, compact, html, join
from regraft.report.html.tables import folded, listing, table
from regraft.wording import number, quantity

__all__ = ["badge", "freezing"]


def freezing(evidence: Evidence) -> Html:
    """Return the proof, stage by stage, that what was frozen did not move and what should train did."""
    audits = parts(evidence.audit, "stages")
    if not audits:
        return html('<p class="absent">No stage was audited.</p>')
    return join(_audit(audit) for audit in audits)


def badge(audit: Record) -> Html:
    """Return the verdict of a stage's audit as a mark."""
    if not audit:
        return html('<span class="badge none">no audit</span>')
    good = audit.get("verdict") == "ok"
    return html('<span class="badge {}">{}</span>', "good" if good else "bad", audit.get("verdict"))


def _audit(audit: Record) -> Html:
    trainable, frozen = parts(audit, "trainable"), list(audit.get("frozen") or ())
    moved = list(audit.get("buffers_moved") or ())
    equal = audit.get("optimizer_equals_trainable")
    sentence = (
        f"{quantity(audit.get('num_trainable', len(trainable)), 'tensor')} trained, "
        f"{audit.get('num_frozen', len(frozen)):,} frozen and compared byte for byte. "
        f"The optimizer held {'exactly the trainable tensors' if equal else 'other tensors than the trainable ones'}."
    )
    rows = [
        (t.get("name"), _shape(t.get("shape")), number(t.get("grad_norm")), number(t.get("moved"))) for t in trainable
    ]
    header = ("tensor", "shape", "#gradient norm", "#moved (L2)")
    return html(
        "<h3>{} {}</h3><p>{}</p>{}{}{}{}",
        audit.get("stage"),
        badge(audit),
        sentence,
        html('<ul class="warning">{}</ul>', join(html("<li>{}</li>", text) for text in audit.get("violations") or ()))
        if audit.get("violations")
        else "",
        folded(f"Trained ({len(rows):,})", table(header, rows, most=500), opened=len(rows) <= 8),
        folded(f"Frozen ({len(frozen):,})", listing(frozen)) if frozen else "",
        folded(f"Buffers that moved, as they may ({len(moved):,})", listing(moved)) if moved else "",
    )


def _shape(shape: Any) -> str:
    return " × ".join(map(str, shape)) if isinstance(shape, list) else compact(shape)
