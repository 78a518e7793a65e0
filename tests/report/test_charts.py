"""Charts: what they show, and that odd numbers do not break them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.report.html.charts import Series, Span, bar, curves_or_values, line_chart, shorten
from regraft.report.html.confusion import confusion_chart

any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)


def draw(series: list[Series], **options: object) -> ET.Element:
    return ET.fromstring(line_chart("Loss", series, x_label="epoch", y_label="nats", **options))


def numbers(element: ET.Element, name: str) -> list[float]:
    return [float(e.attrib[name]) for e in element.iter() if name in e.attrib]


@given(st.lists(any_float, max_size=30))
@settings(max_examples=80, deadline=None)
def test_any_values_give_a_chart_inside_its_frame(values: list[float]) -> None:
    points = tuple((float(i), y) for i, y in enumerate(values, 1))
    usable = [y for y in values if math.isfinite(y)]
    text = line_chart("Loss", [Series("training", "train", points)], x_label="epoch", y_label="nats")
    figure = ET.fromstring(text)
    if not usable:
        assert "nothing was recorded" in text
        return
    assert len(list(figure.iter("circle"))) == len(usable)
    assert all(0 <= x <= 520 for x in numbers(figure, "cx"))
    assert all(0 <= y <= 288 for y in numbers(figure, "cy"))
    assert "nan" not in text.lower().replace("nan at epoch", "")


def test_a_higher_value_stands_higher_and_a_later_epoch_further_right() -> None:
    figure = draw([Series("validation", "val", ((1.0, 0.2), (2.0, 0.8)))])
    (x1, x2), (y1, y2) = numbers(figure, "cx"), numbers(figure, "cy")
    assert x1 < x2
    assert y1 > y2


def test_ticks_are_round_and_percentages_end_at_100() -> None:
    figure = draw([Series("validation", "val", tuple((float(i), 91.3 + i / 2) for i in range(1, 18)))], most=100)
    ticks = [float(e.text or "nan") for e in figure.iter("text") if e.get("text-anchor") == "end"]
    assert ticks == [90, 92, 94, 96, 98, 100]
    along = [e.text for e in figure.iter("text") if (e.get("class"), e.get("text-anchor")) == ("tick", "middle")]
    assert along == ["2", "4", "6", "8", "10", "12", "14", "16"]


def test_stages_and_the_best_epoch_are_marked() -> None:
    spans = [Span("head", 1, 4), Span("block5", 5, 9)]
    figure = draw([Series("v", "val", tuple((float(i), i / 7) for i in range(1, 10)))], spans=spans, best=(6.0, "best"))
    names = [e.text for e in figure.iter("text") if e.get("class") == "stage"]
    assert names == ["head", "block5"]
    boundary = next(e for e in figure.iter("line") if e.get("class") == "boundary")
    x = [float(e.attrib["cx"]) for e in figure.iter("circle")]
    assert x[3] < float(boundary.attrib["x1"]) < x[4]
    best = next(e for e in figure.iter("g") if e.get("class") == "best")
    assert numbers(best, "x1") == [x[5]]


def test_the_confusion_matrix_shows_every_count_and_marks_the_diagonal() -> None:
    text = confusion_chart([[7, 3, 0], [0, 5, 0], [1, 0, 4]], ["ant", "bee", "cat"])
    svg = ET.fromstring(text)
    assert [e.text for e in svg.iter("text") if (e.get("class") or "").startswith("count")] == ["7", "3", "5", "1", "4"]
    titles = [e.text for e in svg.iter("title")]
    assert titles[1] == "ant → bee: 3 (30.0% of the row)"
    assert len([e for e in svg.iter("rect") if e.get("class") == "right"]) == 3
    shades = [float(e.attrib["fill-opacity"]) for e in svg.iter("rect") if e.get("class") == "wrong"]
    assert shades.count(0.0) == 4
    assert all(shade == 0 or shade > 0.1 for shade in shades)


@given(st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_matrix_keeps_within_its_picture(num: int, count: int) -> None:
    svg = ET.fromstring(confusion_chart([[count] * num] * num, ["a very long class name indeed"] * num))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    assert width <= 1110
    for rect in svg.iter("rect"):
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height


@given(st.text(max_size=40), st.integers(4, 30))
def test_shortened_names_fit(text: str, longest: int) -> None:
    short = shorten(text, longest)
    assert len(short) <= max(longest, 0)
    assert short == text or "…" in short


def test_bars_stay_within_their_track() -> None:
    widths = [re.findall(r'width="([\d.]+)"', bar(share))[-1] for share in (-1.0, 0.25, 7.0)]
    assert [float(width) for width in widths] == [0, 25, 100]


def test_counts_that_do_not_fit_are_percentages_of_the_row_and_no_cell_is_blank() -> None:
    counts = [[18_400_000, 3, 0], [1_600_000, 2_400_000, 0], [0, 0, 512]] + [[0] * 12 for _ in range(9)]
    counts = [[*row, *[0] * (12 - len(row))] for row in counts]
    svg = ET.fromstring(confusion_chart(counts, [f"class {n}" for n in range(12)]))
    shown = [e.text for e in svg.iter("text") if (e.get("class") or "").startswith("count")]
    assert shown == ["99", "<1", "40", "60", "100"]
    assert "class 0 → class 0: 18,400,000 (100.0% of the row)" in [e.text for e in svg.iter("title")]


def test_of_a_single_place_there_is_no_curve_but_its_values() -> None:
    series = [Series("training", "train", ((1.0, 0.25),)), Series("validation", "val", ((1.0, 0.5),))]
    text = curves_or_values("Loss", series, x_label="epoch", y_label="nats")
    assert "<svg" not in text
    assert "training <strong>0.25</strong>; validation <strong>0.5</strong>" in text
    series.append(Series("calibrated", "hue-2", ((1.0, 0.5), (2.0, 0.4))))
    assert "<svg" in curves_or_values("Loss", series, x_label="epoch", y_label="nats")
    assert "nothing was recorded" in curves_or_values("Loss", [], x_label="epoch", y_label="nats")
