"""A plan and what it will take, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from regraft.plan.make import Plan
from regraft.plan.rates import rates_of
from regraft.settings.stage import Stage
from regraft.training.preflight.forecast import Forecast, StageForecast
from regraft.wording import quantity

__all__ = ["render_plan"]


def render_plan(model: nn.Module, plan: Plan, expected: Forecast) -> str:
    """Return the forecast as text: each stage's layers, settings, time and memory; then the whole run."""
    lines = ["stages"]
    for stage, names, will in zip(plan, plan.trainable, expected.stages, strict=True):
        lines += _stage(model, stage, names, will)
    numerics = expected.numerics
    tried = [stage.num_images for stage in expected.stages]
    lines += [
        f"whole run: about {_clock(expected.seconds)}, of which {_clock(expected.starting)} to start, "
        f"{_clock(expected.decoding)} to decode and {_clock(expected.measuring)} to evaluate; about "
        f"{_amount(expected.num_bytes)} of memory, and {_amount(expected.pixel_bytes)} for decoded pixels",
        f"estimated from steps on batches of up to {max(tried)} images of noise, "
        f"timed and counted just now on this machine ({numerics.device}, {numerics.precision}, "
        f"{quantity(numerics.threads, 'thread')}) and multiplied up; early stopping, pixels and features that are "
        "cached on the disk, and what else "
        "runs here by then are not in it",
    ]
    return "\n".join(lines)


def _stage(model: nn.Module, stage: Stage, names: tuple[str, ...], will: StageForecast) -> list[str]:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    what = f"  {stage.name}: trains {', '.join(stage.selectors)} ({quantity(len(names), 'tensor')}, "
    what += f"{quantity(sum(sizes[name] for name in names), 'parameter')}) on {will.size[0]}x{will.size[1]} images"
    return [
        what,
        f"    {_how(model, stage, names, will)}",
        f"    about {_clock(will.seconds)}, {_amount(will.num_bytes)}",
    ]


def _how(model: nn.Module, stage: Stage, names: tuple[str, ...], will: StageForecast) -> str:
    if will.length is None:
        return "fit with L-BFGS on features that are computed once"
    length = will.length
    batch = f"batches of {will.batch_size}" + (f" x {stage.accumulate}" if stage.accumulate > 1 else "")
    epochs = f"{quantity(length.epochs, 'epoch')} of {quantity(length.steps_per_epoch, 'step')}"
    steps = quantity(length.steps, "step")
    count = f"{steps} (about {epochs})" if length.counts_steps else f"{epochs} ({steps})"
    rates = {rate.group: rate.lr for rate in rates_of(model, stage, names).values()}
    shown = {f"{rate:g}" for rate in rates.values()}
    by_group = len(shown) > 1 and len(rates) <= 6
    each = ", ".join(f"{group} {rate:g}" for group, rate in rates.items())
    lr = each if by_group else _between(list(rates.values()))
    return f"{count}, {batch}, {stage.optimizer}, lr {lr}, {stage.rate_schedule.name}"


def _between(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{max(num_bytes / 1e6, 1):.0f} MB"
