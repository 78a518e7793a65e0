"""report.html: one file that opens offline, a pure function of the run folder.

Every text in it that comes from the run (class names, file names, errors) is escaped; a strict Content-Security-Policy
forbids scripts and any request, so that a hostile file name can do nothing even if an escape were missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft import commit
from regraft.errors import SettingsError
from regraft.report import folds, sections
from regraft.report.checkup import checked
from regraft.report.evidence import Evidence, gather
from regraft.report.html.markup import PAGE_MARK, Html, html, join
from regraft.report.html.page import page, write_page
from regraft.report.results import results
from regraft.report.training.curves import curves
from regraft.report.training.freezing import freezing
from regraft.report.training.stages import stages
from regraft.run.folder import RunFolder

__all__ = ["write_report"]

Sections = tuple[tuple[str, str, Callable[[Evidence], Html]], ...]
_OF_FOLDS: Sections = (
    ("folds", "Folds", folds.measures),
    ("curves", "Curves", folds.curves),
    ("results", "Results", results),
    ("weights", "Weights", sections.weights),
    ("data", "Data", sections.data),
    ("environment", "Environment", sections.environment),
)
_SECTIONS: Sections = (
    ("stages", "What was trained", stages),
    ("curves", "Curves", curves),
    ("results", "Results", results),
    ("weights", "Weights", sections.weights),
    ("freezing", "Frozen and trained", freezing),
    ("data", "Data", sections.data),
    ("check", "Data check", checked),
    ("environment", "Environment", sections.environment),
)


def write_report(run: RunFolder | Path | str) -> Path:
    """Write `report.html` into the run folder, from what lies there and nothing else, and returns its path.

    Records that are absent (a run that was stopped early) or damaged are named in the report, which goes on without
    them. Images of errors are read from where the predictions say that they lie, when they are still there.

    Raises:
        SettingsError: When there is no such folder.
        StorageError: When the report cannot be written.
    """
    path = run.path if isinstance(run, RunFolder) else Path(run)
    if not path.is_dir():
        raise SettingsError(
            f"{path} is not a folder.",
            "a report is made from a run folder, which regraft train writes",
            "`regraft report runs/NAME`",
        )
    target = RunFolder(path).report
    commit.require_replaceable(target, PAGE_MARK)
    return write_page(target, _page(gather(path)))


def _page(evidence: Evidence) -> Html:
    chosen = _OF_FOLDS if evidence.folds else _SECTIONS
    return page(
        title=f"{evidence.path.resolve().name}: regraft report",
        name=evidence.path.resolve().name,
        links=join(html('<a href="#{}">{}</a>', key, title) for key, title, _ in chosen),
        verdict=_guarded(folds.verdict if evidence.folds else sections.verdict, evidence),
        gaps=_gaps(evidence),
        sections=join(
            html('<section id="{}"><h2>{}</h2>{}</section>', key, title, _guarded(make, evidence))
            for key, title, make in chosen
        ),
        version=evidence.environment.get("regraft", ""),
    )


def _guarded(make: Callable[[Evidence], Html], evidence: Evidence) -> Html:
    """Return the section, or a sentence that says why its records cannot be shown: one strange file costs one
    section.
    """
    try:
        return make(evidence)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        return html('<p class="warning">The records behind this part are not what regraft writes ({}).</p>', reason)


def _gaps(evidence: Evidence) -> Html:
    lines = list(evidence.problems)
    if evidence.absent:
        lines.append(f"Not in this run folder: {', '.join(evidence.absent)}.")
    if not lines:
        return Html("")
    return html('<ul class="gaps">{}</ul>', join(html("<li>{}</li>", line) for line in lines))
