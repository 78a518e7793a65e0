"""Escaping: nothing that a run holds can become markup, or deceive the eye."""

from __future__ import annotations

import html as standard_html

from hypothesis import given
from hypothesis import strategies as st

from regraft.report.html.markup import Html, block, compact, html, join
from regraft.visible import visible


@given(st.text(st.characters(codec=None)))
def test_values_come_back_as_text_and_as_nothing_else(text: str) -> None:
    out = html('<td title="{}">{}</td>', text, text)
    inner = out.removeprefix('<td title="').removesuffix("</td>")
    assert not set(inner.replace('">', "", 1)) & set("<>\"'")
    assert standard_html.unescape(out[out.index('">') + 2 : -len("</td>")]) == visible(text)
    out.encode("utf-8")


def test_markup_is_inserted_as_it_stands_and_braces_in_values_are_text() -> None:
    assert html("{}{}", Html("<b>"), "{0}<i>") == "<b>{0}&lt;i&gt;"
    assert join(["<", Html("<br>")], ", ") == "&lt;, <br>"
    assert html("{}", None) == ""


def test_format_specifications_work_inside_templates() -> None:
    assert html("{:,} {:.1%} {x:.2f}", 1234, 0.5, x=1) == "1,234 50.0% 1.00"


def test_controls_and_bidi_marks_are_spelt_out() -> None:
    assert visible("a\nb\x1b[1m\u202e\u2028\udcff\x00é") == r"a\nb\x1b[1m\u202e\u2028\udcff\x00é"
    assert visible("日本 עברית 👩‍💻") == "日本 עברית 👩‍💻"


def test_blocks_keep_their_lines_only() -> None:
    assert block("a <b>\n\tc\x1b\n") == "a &lt;b&gt;\n    c\\x1b"


def test_settings_are_written_as_people_write_them() -> None:
    settings = {"crop": None, "ema": True, "lr": 1e-5, "train": ["block5", "head"], "pair": [[1, 2], [3]]}
    assert compact(settings) == "crop: none, ema: yes, lr: 1e-05, train: block5, head, pair: [1, 2], [3]"
