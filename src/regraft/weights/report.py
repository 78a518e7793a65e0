"""The receipt of a match: what goes where, by which rule, and what is left on either side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regraft.errors import SettingsError, WeightsError
from regraft.summary import Summary
from regraft.weights.axes import Step
from regraft.weights.file import SourceTensor
from regraft.weights.shard_name import shard_note

__all__ = ["Ambiguity", "Finding", "Match", "MatchReport", "WrongShape"]

_REQUIREMENTS = ("backbone", "all", "any")
_MOST_SHOWN = 12  # problems in an error: one screen; the report lists all


@dataclass(frozen=True)
class Match:
    """One tensor of the model and where its values come from.

    Attributes:
        target: The tensor of the model.
        sources: The tensors of the file: one, or two where a bias is folded, three where queries, keys and values are
            joined, or none for a constant.
        rule: The rule that found it (`map`, `exact name`, `family: ...`, `suffix`, `graph`, `structure`, ...).
        steps: The layout steps, in order.
    """

    target: str
    sources: tuple[SourceTensor, ...]
    rule: str
    steps: tuple[Step, ...] = ()

    def of_the_file(self) -> Match:
        """Return the same from tensors of the file alone, where its source is made of some."""
        if len(self.sources) != 1 or not self.sources[0].parts:
            return self
        made = self.sources[0]
        return replace(self, sources=made.parts, steps=(*made.made, *self.steps))

    def to_dict(self) -> dict[str, Any]:
        names = [source.name for source in self.sources]
        return {
            "target": self.target,
            "source": names[0] if len(names) == 1 else names,
            "rule": self.rule,
            "steps": [str(step) for step in self.steps],
        }


@dataclass(frozen=True)
class WrongShape:
    """A tensor of the file that belongs to one of the model by its name, and does not fit it."""

    target: str
    source: str
    target_shape: tuple[int, ...]
    source_shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "source": self.source,
            "target_shape": list(self.target_shape),
            "source_shape": list(self.source_shape),
        }


@dataclass(frozen=True)
class Ambiguity:
    """Tensors between which the file does not decide.

    Attributes:
        targets: The tensors of the model.
        sources: The tensors of the file that could all be theirs.
        decides: What would settle it.
        prefixes: Where whole copies of a network are meant: what the names of each begin with.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    decides: str
    prefixes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"targets": list(self.targets), "sources": list(self.sources), "decides": self.decides}


@dataclass(frozen=True)
class Finding:
    """Something that the user must know: an attribute that differs, folded norms, values that are no weights.

    Attributes:
        kind: `attribute` (a stride or an epsilon, which `graft` can change), `layout`, `folded`, `leftover` (a tensor
            of a layer that was placed), `extra` (layers inside what was matched), `input` (what
            the file's network does to its own input), `quantised`, `order` (layers placed
            by the file's order), `unknown` (what the file does not tell), `note`.
        layer: The layer of the model that it is about, or an empty string.
        text: One sentence for people.
        attribute: For `attribute`: its name (`stride`, `padding`, `eps`).
        model_value: What the model has.
        file_value: What the file was made with.
        serious: Whether the model computes another function if nothing is done.
        layers: For `attribute`: all the layers that it is about.
        unknown: Whether the file does not tell, so that a reference output settles it.
    """

    kind: str
    layer: str
    text: str
    attribute: str = ""
    model_value: Any = None
    file_value: Any = None
    serious: bool = False
    layers: tuple[str, ...] = ()
    unknown: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        values: dict[str, Any] = {"kind": self.kind, "layer": self.layer, "text": self.text, "serious": self.serious}
        if self.attribute:
            values |= {"attribute": self.attribute, "model": self.model_value, "file": self.file_value}
            values |= {"layers": list(self.layers)}
        return values


@dataclass(frozen=True, repr=False)
class MatchReport(Summary):
    """Accounts for every tensor of the file and of the model.

    Attributes:
        file: The path of the file.
        format: Its format.
        producer: Who wrote it.
        model: The model's name, or an empty string.
        matched: Tensors of the model with their sources.
        missing: Tensors of the model that nothing fills.
        unexpected: Tensors of the file that go nowhere.
        wrong_shape: Pairs that belong together by name and do not fit.
        ambiguous: Groups that the file does not decide.
        dropped: Tensors of the file left out on request (`--skip`).
        dropped_targets: Tensors of the model left as they are on request.
        parts: `backbone` or `head` for each tensor of the model.
        findings: What the user must know.
        notes: How the file was read.
        options: What was asked for beside the rules, as `match` spells it (`skip`, `map`, `flip_stem`, ...).
        recognized: Where the backbone is not filled: whose names the file has, or an empty string.
        likely: Where it is not filled: the known network whose kernels the file has, or an empty string.
    """

    file: Path
    format: str
    producer: str
    model: str
    matched: tuple[Match, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[WrongShape, ...]
    ambiguous: tuple[Ambiguity, ...]
    dropped: tuple[str, ...]
    dropped_targets: tuple[str, ...]
    parts: Mapping[str, str] = field(repr=False)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    recognized: str = ""
    likely: str = ""

    def facts(self) -> dict[str, object]:
        """Return the file, the model, the six counts and how much is filled."""
        coverage = ", ".join(f"{part} {share:.1%}" for part, share in self.coverage.items())
        return {"file": str(self.file), "format": self.format, "model": self.model, **self.counts, "coverage": coverage}

    @property
    def counts(self) -> dict[str, int]:
        """The six numbers; `totals` shows how they add up on either side."""
        return {
            "matched": len(self.matched),
            "missing": len(self.missing),
            "unexpected": len(self.unexpected),
            "wrong_shape": len(self.wrong_shape),
            "ambiguous": sum(len(group.targets) for group in self.ambiguous),
            "dropped": len(self.dropped),
        }

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        """For the model and for the file: where each of its tensors went; the parts add up to `total`."""
        used = {source.name for match in self.matched for source in match.sources}
        wrong_sources = {pair.source for pair in self.wrong_shape} - used
        open_sources = {name for group in self.ambiguous for name in group.sources} - used
        model = {
            "matched": len(self.matched),
            "missing": len(self.missing),
            "wrong_shape": len(self.wrong_shape),
            "ambiguous": self.counts["ambiguous"],
            "dropped": len(self.dropped_targets),
        }
        file = {
            "matched": len(used),
            "unexpected": len(self.unexpected),
            "wrong_shape": len(wrong_sources),
            "ambiguous": len(open_sources),
            "dropped": len(self.dropped),
        }
        return {
            "model": {**model, "total": sum(model.values())},
            "file": {**file, "total": sum(file.values())},
        }

    @property
    def coverage(self) -> dict[str, float]:
        """Share of the model's tensors that are filled, without those left out on request: `backbone` and `all`."""
        return {"backbone": self._coverage("backbone"), "all": self._coverage("")}

    def _coverage(self, part: str) -> float:
        left_out = set(self.dropped_targets)
        wanted = {name for name, where in self.parts.items() if (not part or where == part) and name not in left_out}
        filled = sum(match.target in wanted for match in self.matched)
        return filled / len(wanted) if wanted else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: this is match.json."""
        return {
            "file": str(self.file),
            "format": self.format,
            "producer": self.producer,
            "model": self.model,
            "counts": self.counts,
            "totals": self.totals,
            "coverage": self.coverage,
            "matched": [match.to_dict() for match in self.matched],
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "wrong_shape": [pair.to_dict() for pair in self.wrong_shape],
            "ambiguous": [group.to_dict() for group in self.ambiguous],
            "dropped": list(self.dropped),
            "dropped_targets": list(self.dropped_targets),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
            "options": dict(self.options),
        }

    def require(self, what: str = "backbone", *, adjust: bool = False, checked: bool = False) -> MatchReport:
        """Raise unless enough was matched; returns the report itself.

        Args:
            what: `backbone` (everything up to the last feature map), `all`, or `any` (at least one tensor).
            adjust: Whether `graft(..., adjust=True)` will change the strides and epsilons that differ, so that they
                are no problem.
            checked: Whether the filled model is held against a reference output, which settles what the file does not
                tell.

        Raises:
            SettingsError: `what` is something else.
            WeightsError: Something of it is missing, of a wrong shape or ambiguous, or a finding would make the model
                compute another function; it names the layers.
        """
        problems = _problems(self, what, adjust, checked)
        if problems:
            more = [f"... and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
            known = [f"recognized: {self.recognized}"] if self.recognized else []
            raise WeightsError(
                *_refusal(self, what),
                _next_step(self),
                details=[*problems[:_MOST_SHOWN], *more, *known],
            )
        return self

    def render(self, *, limit: int = 40) -> str:
        """Return the report for people: tensors grouped by layer, at most `limit` lines of each kind."""
        return _rendered(self, limit)


def _next_step(report: MatchReport) -> str:
    """Return what to type: the network that the file seems to be of, where it is known and another one."""
    if report.likely and report.likely != report.model:
        another = f"`--model {report.likely}`, whose kernels the file has; or "
    else:
        another = ""
    return (
        f"{another}look at the report (`regraft match FILE --model NAME`), then name pairs with --map, leave tensors "
        "out with --skip, change differing strides and epsilons with --adjust, or choose the architecture that the "
        "file was made for"
    )


def _refusal(report: MatchReport, what: str) -> tuple[str, str]:
    """Return the error message of an insufficient match, and the coverage that was required."""
    model = report.model or "the model"
    part = "all" if what == "all" else "backbone"
    if what != "any" and report.coverage[part] == 1.0:
        return (
            f"{str(report.file)!r} fills {model}, but the model would not compute what the file's network does.",
            "the network that the file was made for, with the same settings",
        )
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items())
    wanted = "at least one tensor of the model" if what == "any" else "every tensor of the "
    wanted += {"all": "model", "backbone": "backbone"}.get(what, "")
    share = f"{report.coverage[part]:.1%}" if report.coverage[part] > 0.99 else f"{report.coverage[part]:.0%}"
    return (
        f"{str(report.file)!r} does not fill {model}: {counts}.",
        f"{wanted} matched (now {share})",
    )


def _problems(report: MatchReport, what: str, adjust: bool, checked: bool) -> list[str]:
    if what not in _REQUIREMENTS:
        raise SettingsError(
            f"What must be filled is {what!r}.",
            f"one of: {', '.join(_REQUIREMENTS)}",
            '`require="backbone"`',
        )
    problems = [f"ambiguous: {_group(group.targets)} <- {_group(group.sources)}; {group.decides}"
                for group in report.ambiguous]  # fmt: skip
    problems += [
        finding.text
        for finding in report.findings
        if finding.serious and not (adjust and finding.kind == "attribute") and not (checked and finding.unknown)
    ]
    if not any(match.sources for match in report.matched):
        is_choice = any(group.prefixes for group in report.ambiguous)
        return problems if is_choice else ["nothing in the file fits the model", *problems]
    if what == "any":
        return problems
    wanted = {name for name, part in report.parts.items() if what == "all" or part == "backbone"}
    missing = [name for name in report.missing if name in wanted]
    if missing:
        problems.append(f"missing: {_group(missing)}")
        problems += filter(None, [shard_note(Path(report.file))])
    problems += [
        f"wrong shape: {pair.target} is {pair.target_shape}, {pair.source} is {pair.source_shape}"
        for pair in report.wrong_shape
        if pair.target in wanted
    ]
    return problems


def _rendered(report: MatchReport, limit: int) -> str:
    totals, producer = report.totals, f", {report.producer}" if report.producer else ""
    lines = [
        f"{report.file} ({report.format}{producer}) -> {report.model or 'model'}",
        "model: " + _sum(totals["model"]) + "   file: " + _sum(totals["file"]),
    ]
    lines += [f"WARNING: {finding.text}" for finding in report.findings if finding.serious]
    lines.append(f"coverage: backbone {report.coverage['backbone']:.1%}, all {report.coverage['all']:.1%}")
    lines += [f"recognized: {report.recognized}"] if report.recognized else []
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"finding: {finding.text}" for finding in report.findings if not finding.serious]
    lines += _section("matched", _matched_lines(report.matched), limit)
    lines += _section("missing", _grouped(report.missing), limit)
    lines += _section("unexpected", _grouped(report.unexpected), limit)
    wrong = [f"{p.target} {p.target_shape} <- {p.source} {p.source_shape}" for p in report.wrong_shape]
    lines += _section("wrong shape", wrong, limit)
    unclear = [f"{_group(g.targets)} <- {_group(g.sources)}: {g.decides}" for g in report.ambiguous]
    lines += _section("ambiguous", unclear, limit)
    lines += _section("dropped on request", _grouped(report.dropped), limit)
    return "\n".join(lines)


def _sum(parts: Mapping[str, int]) -> str:
    shown = [f"{count} {name.replace('_', ' ')}" for name, count in parts.items() if name != "total" and count]
    return f"{' + '.join(shown) or '0'} = {parts['total']}"


def _section(title: str, lines: Sequence[str], limit: int) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"{title}:", *(f"  {line}" for line in lines[:limit]), *more]


def _matched_lines(matches: Sequence[Match]) -> list[str]:
    """Return one line a layer of the model: its tensors, the layer of the file, the rule and the steps of its
    kernel.
    """
    grouped: dict[str, list[Match]] = {}
    for match in matches:
        grouped.setdefault(match.target.rpartition(".")[0], []).append(match)
    lines = []
    for group in grouped.values():
        sources = [source.name for match in group for source in match.sources]
        steps = max((match.steps for match in group if match.sources), key=len, default=())
        shown = " [" + ", ".join(map(str, steps)) + "]" if steps else ""
        lines.append(f"{_group([match.target for match in group])} <- {_group(sources)} ({group[0].rule}){shown}")
    return lines


def _grouped(names: Sequence[str]) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for name in names:
        stem, _, leaf = _parted(name)
        grouped.setdefault(stem, []).append(leaf)
    return [_braces(stem, leaves) for stem, leaves in grouped.items()]


def _group(names: Sequence[str]) -> str:
    return " + ".join(_grouped(list(dict.fromkeys(names)))[:8]) or "nothing"


def _braces(stem: str, leaves: Sequence[str]) -> str:
    return f"{stem}{{{','.join(leaves)}}}" if len(leaves) > 1 else f"{stem}{leaves[0]}"


def _parted(name: str) -> tuple[str, str, str]:
    found = re.match(r"(.*[./])?([^./]+)$", name)
    return (found.group(1) or "", "", found.group(2)) if found else ("", "", name)
