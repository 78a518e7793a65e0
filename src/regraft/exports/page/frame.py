"""The page that names photos, whatever answers it: facts for its script, style, and what is told of the model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from regraft.data.class_table import default_colours
from regraft.evaluation.results.prediction import KNOWN_SHARE
from regraft.evaluation.trust.conformal import most_coverage, score_limit
from regraft.exports.seal import Seal
from regraft.language.translate import in_chinese
from regraft.report.html.markup import Html, compact, html
from regraft.report.html.markup import package_text as report_text
from regraft.report.html.tables import definitions
from regraft.version import __version__
from regraft.visible import visible

__all__ = ["HEAT", "Answering", "frame", "text_of"]

HEAT = "heat"  # the output that says what each place adds to each class
_COVERAGE = 0.9  # of the sets that the page shows beside a name
_MOST_NAMED = 8
_SAID = (  # by the scripts; `{}` for what they fill in
    "Looking …",
    "1 photo",
    "{} photos",
    "{} more",
    "Don’t know",
    "It resembles none of the images that the model was validated on. If it is one of its classes at all:",
    "No label",
    "or {}",
    "or {} or {} more",
    "Sets like this one hold the right class in 90% of the images.",
    "named from {} on",
    "Share of the pixels",
    "Heat map",
    "Heat map of {}",
    "Where the model finds what speaks for {}: what it used, not whether it is right to.",
    "The server does not answer.",
    "This browser cannot run the model.",
    "This file cannot be read as an image.",
)


class Answering(NamedTuple):
    """What answers a page, and what the page says of it.

    Attributes:
        script: It asks the model, and declares `ask(file)`.
        promise: Where the photos go, below the buttons.
        ending: The same, in the footer.
        policy: What the page may do beside running its own script and style, as a Content-Security-Policy.
        data: What the script reads.
        licences: Of what the page carries.
    """

    script: str
    promise: str
    ending: str
    policy: str
    data: Html = Html("")
    licences: Html = Html("")


def frame(seal: Seal, title: str, answering: Answering, outputs: Sequence[str]) -> Html:
    """Return the whole page.

    Args:
        seal: What is known of the model.
        title: The heading.
        answering: What answers it.
        outputs: What it gives: whether it says how typical an image is, and where it looks.
    """
    style = report_text("style.css") + text_of("page.css")
    script = answering.script + (text_of("heat.js") if HEAT in outputs else "") + text_of("page.js")
    own = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src blob: data:; style-src {_hash(style)}; "
    return html(
        text_of("page.html"),
        policy=Html(f"{own}script-src {_hash(script)} {answering.policy}"),
        style=Html(style),
        title=title,
        lead=_lead(seal),
        invitation=_both("Drop photos here"),
        choose=_both("Choose photos"),
        take=_both("Use the camera"),
        promise=_both(answering.promise),
        clear=_both("Clear"),
        about_title=_both("About this model"),
        about=_about(seal),
        licences=answering.licences,
        version=__version__,
        ending=_both(answering.ending),
        facts=_json(_facts(seal, outputs)),
        data=answering.data,
        script=Html(script),
    )


def text_of(name: str) -> Html:
    """Return a file that lies beside this module."""
    return Html(resources.files(__package__ or "regraft.exports.page").joinpath(name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Mapping[str, Any]) -> Html:
    """Return JSON that ends no element of HTML."""
    return Html(json.dumps(value).replace("<", "\\u003c"))


def _facts(seal: Seal, outputs: Sequence[str]) -> dict[str, Any]:
    scores = seal.nonconformity
    keeps_sets = scores is not None and seal.output != "multilabel" and most_coverage(len(scores)) >= _COVERAGE
    is_mask, program = seal.output == "segmentation", seal.preprocessing.pixels
    view = {"resize": program.resize, "crop_fraction": program.crop_fraction, "size": program.stored or program.size}
    return {
        "output": seal.output,
        "keys": list(seal.class_names),
        "names": [visible(name) for name in seal.class_names],
        "thresholds": [seal.thresholds.get(name) for name in seal.class_names],
        "unknown_below": 1 - KNOWN_SHARE if "typicality" in outputs else None,
        "set_limit": score_limit(scores, _COVERAGE) if keeps_sets and scores is not None else None,
        "background": list(program.background),
        "view": view if HEAT in outputs else None,
        "colours": (list(seal.colours) or list(default_colours(seal.class_names))) if is_mask else None,
        "zh": {text: in_chinese(text) for text in _SAID},
    }


def _both(text: str, chinese: str | None = None) -> Html:
    """Return a text that the page shows in Chinese where the browser is set to it."""
    return html('<span data-zh="{}">{}</span>', chinese or in_chinese(text), text)


def _lead(seal: Seal) -> Html:
    names, num = list(seal.class_names), len(seal.class_names)
    more = f"{num - _MOST_NAMED + 1:,} more"
    shown = names if num <= _MOST_NAMED else [*names[: _MOST_NAMED - 1], more]
    does = {"multilabel": "Finds", "segmentation": "Outlines"}.get(seal.output, "Tells apart")
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}" if num > 1 else names[0]
    in_order = "、".join(in_chinese(name) if name is more else name for name in shown)
    return _both(f"{does} {listed}.", in_chinese(f"{does} {in_order}."))


def _about(seal: Seal) -> Html:
    program = seal.preprocessing.pixels
    height, width = program.size
    checked = {key.replace("_", " "): value for key, value in seal.verified.items()}
    rows = {
        "network": seal.architecture,
        "input": f"{width}x{height}, {program.resize}, {program.interpolation}",
        "pretrained weights": f"licence: {seal.license}",
        "SHA-256 of the weights": seal.model_sha256,
        **{f"compared with the run: {key}": compact(value) for key, value in checked.items()},
        "classes": ", ".join(seal.class_names),
    }
    return definitions(rows.items())
