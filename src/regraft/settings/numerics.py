"""The settings of device and precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft.settings.strict import Count, Strict

__all__ = ["NumericsSettings"]


class NumericsSettings(Strict):
    """What to compute with; `auto` is resolved for the machine and written back."""

    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or auto: the fastest available")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="precision of activations in training; trained parameters are always fp32"
    )
    inference: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="precision of validation, selection, evaluation; auto: fp32, or what `precision` asks for by name",
    )
    channels_last: bool = Field(True, description="whether images are laid out NHWC in memory")
    threads: Count | None = Field(None, description="CPU threads; null: all available")
    choose: Literal["table", "measure"] = Field(
        "table", description="precision and layout: from the built-in table, or by a brief benchmark"
    )
