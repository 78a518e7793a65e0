"""`regraft compare`: which of two runs is better on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from regraft import commit
from regraft.cli.options import DeviceOption, ThreadsOption
from regraft.cli.say import say
from regraft.commit import as_json as as_json_text
from regraft.visible import one_line

__all__ = ["compare"]

_MOST_CLASSES = 20


def compare(
    first: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another run folder.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Argument(help="Labelled images, as for `regraft train`; by default the first run's test split."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the first run: val or test.", show_default=False)
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0, max=1, help="Up to which difference of accuracies the two are equal.")
    ] = 0.01,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write a page, with the images that one alone gets right.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Compare two runs on the same images: paired tests and intervals, by class, with what each costs.

    Images that either run has trained or validated on are left out, and so are copies of others.
    """
    from regraft.report.html.markup import PAGE_MARK

    if out is not None:
        commit.require_replaceable(out, PAGE_MARK)

    from regraft.comparison.compare import compare as compared
    from regraft.compute.numerics import choose_numerics
    from regraft.machine.heap import keep_freed_memory

    keep_freed_memory()
    numerics = choose_numerics(device, threads=threads)
    found = compared(first, second, data, split=split, margin=margin, numerics=numerics)
    record = found.to_dict()
    if out is not None:
        from regraft.comparison.page import write_comparison

        write_comparison(out, record)
    if as_json:
        typer.echo(as_json_text(record, indent=2))
    else:
        for line in _lines(record):
            say(line)
    if out is not None:
        say(f"report: {out}", err=True)


def _lines(found: dict[str, Any]) -> list[str]:
    """Return the comparison as text."""
    names = [one_line(name) for name in found["runs"]]
    width = max(map(len, names))
    accuracy, loss, errors, cost = (found[key] for key in ("accuracy", "loss", "calibration", "cost"))
    lines = []
    for place, name in enumerate(names):
        lines.append(
            f"{name:<{width}}  accuracy {accuracy[place]:.2%}  loss {loss['each'][place]:.4f}  "
            f"ECE {errors['each'][place]:.1%}  {cost[place]['ms']:.1f} ms an image  {cost[place]['mb']:.1f} MB"
        )
    lines.append(f"{found['num_images']:,} images ({one_line(str(found['label']))}): {one_line(str(found['verdict']))}")
    low, high = loss["interval"]
    lines.append(f"loss: difference {loss['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})")
    if errors.get("interval"):
        low, high = errors["interval"]
        lines.append(f"ECE: difference {errors['difference']:+.1%} (95 % interval {low:+.1%} to {high:+.1%})")
    lines += [f"note: {one_line(note)}" for note in found["notes"]]
    rows = found["per_class"]
    wide = max(len(one_line(row["name"])) for row in rows)
    for row in sorted(rows, key=lambda row: row["difference"])[:_MOST_CLASSES]:
        low, high = row["interval"]
        lines.append(
            f"  {one_line(row['name']):<{wide}}  recall {row['recall'][0]:.3f} and {row['recall'][1]:.3f}, difference "
            f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f}), images {row['support']}"
        )
    return lines
