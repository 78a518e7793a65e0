"""Accuracy against time as an SVG picture: intervals as bars, seconds on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 56, 48
COLOURS = ("#0b6e8a", "#c2412d", "#7a4bb0", "#b07a10", "#5c6670")
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Point:
    """One run: seconds, accuracy and its interval in percent, and what it is called."""

    seconds: float
    accuracy: float
    low: float
    high: float
    name: str


def duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def plot(title: str, groups: Mapping[str, Collection[Point]]) -> str:
    """The picture; a colour for each group, whose points are joined in the order of their seconds."""
    points = [point for group in groups.values() for point in group]
    names: list[tuple[float, float, float]] = []  # where each begins and ends, and how high it stands
    left, right = math.log(min(p.seconds for p in points) / 1.25), math.log(max(p.seconds for p in points) * 1.25)
    step = next(
        step for step in (1, 2, 5, 10, 20) if max(p.high for p in points) - min(p.low for p in points) < 8 * step
    )
    low = step * math.floor(min(p.low for p in points) / step)
    high = min(step * math.ceil(max(p.high for p in points) / step), 100)

    def x(seconds: float) -> float:
        return LEFT + (math.log(seconds) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (accuracy - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def parts() -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        yield f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        yield '<g font-family="system-ui, sans-serif" font-size="12" fill="#1c2228">'
        yield f'<text x="{LEFT}" y="20" font-weight="600">{escape(title)}</text>'
        for tick in range(low, high + 1, step):
            yield f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#dde2e6"/>'
            yield f'<text x="{LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick} %</text>'
        for tick in TICKS:
            if left <= math.log(tick) <= right:
                yield f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{duration(tick)}</text>'
        yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">from the start of the process</text>'
        for number, (name, group) in enumerate(groups.items()):
            yield from drawn(name, sorted(group, key=lambda p: p.seconds), COLOURS[number % len(COLOURS)], number)
        yield "</g></svg>\n"

    def drawn(name: str, group: Sequence[Point], colour: str, number: int) -> Iterator[str]:
        yield f'<circle cx="{LEFT + 5 + number * 110}" cy="38" r="4.5" fill="{colour}"/>'
        yield f'<text x="{LEFT + 14 + number * 110}" y="42">{escape(name)}</text>'
        path = " ".join(f"{x(p.seconds):.1f},{y(p.accuracy):.1f}" for p in group)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for p in group:
            at, text = x(p.seconds), f"{p.name}: {p.accuracy:.1f} % ({p.low:.1f} to {p.high:.1f}), {p.seconds:.0f} s"
            bar = f'<path d="M{at:.1f} {y(p.low):.1f}V{y(p.high):.1f}" stroke="{colour}" opacity=".45"/>'
            dot = f'<circle cx="{at:.1f}" cy="{y(p.accuracy):.1f}" r="4.5" fill="{colour}"/>'
            yield f"<g><title>{escape(text)}</title>{bar}{dot}</g>"
            style = f'font-size="10.5" fill="{colour}" stroke="#fff" stroke-width="3" paint-order="stroke"'
            yield f"<text {beside(at, y(p.accuracy), p.name)} {style}>{escape(p.name)}</text>"

    def beside(at: float, level: float, name: str) -> str:
        """Where a name stands: the first side of its point where no other name is."""
        width, sides = 5.8 * len(name), ((7, -7), (7, 15), (-7, -7), (-7, 15), (7, 4), (-7, 4))
        if at > 0.75 * WIDTH:
            sides = tuple((-across, down) for across, down in sides)
        boxes = [(at + across - (width if across < 0 else 0), level + down) for across, down in sides]
        taken = [
            sum(abs(level - up) < 12 and start < end and start + width > begin for begin, end, up in names)
            for start, level in boxes
        ]
        (across, _), (start, height) = min(zip(sides, boxes, strict=True), key=lambda one: taken[boxes.index(one[1])])
        names.append((start, start + width, height))
        return f'x="{at + across:.1f}" y="{height:.1f}" text-anchor="{"start" if across > 0 else "end"}"'

    return "\n".join(parts())
