"""How the learning rate changes over a stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from regraft.settings.strict import Count, Factor, ListOf, NotNegative, Ratio, Share, refuse, settings

__all__ = ["Schedule"]

# Which settings each schedule reads, beside its name.
_READS = {
    "constant": (),
    "step": ("every", "milestones", "gamma"),
    "cosine": ("min_lr",),
    "one-cycle": ("pct_start", "div_factor", "final_div_factor", "cycle_momentum"),
}


@settings
class Schedule:
    """How the learning rate changes over a stage; counts are epochs, or steps in a stage that is given in steps.

    `constant`; `step`: times `gamma` at each milestone; `cosine`: half a cosine down to `min_lr` (Loshchilov and Hutter
    2016, arXiv:1608.03983, without restarts); `one-cycle`: up, then down to almost zero, momentum the other way (Smith
    and Topin 2017, arXiv:1708.07120, as torch's OneCycleLR).
    """

    name: Literal["constant", "step", "cosine", "one-cycle"] = Field(description="which schedule")
    every: Count | None = Field(default=None, description="step: a milestone every so many epochs or steps")
    milestones: Annotated[ListOf[Count], Field(min_length=1)] | None = Field(
        default=None, description="step: when the rate is multiplied by gamma"
    )
    gamma: Factor | None = Field(default=None, description="step: the factor; default 0.1")
    min_lr: NotNegative | None = Field(default=None, description="cosine: the rate at the end; default 0")
    pct_start: Share | None = Field(
        default=None, description="one-cycle: the fraction of the stage in which the rate rises; default 0.3"
    )
    div_factor: Ratio | None = Field(
        default=None, description="one-cycle: the peak rate divided by the initial rate; default 25"
    )
    final_div_factor: Ratio | None = Field(
        default=None, description="one-cycle: the initial rate divided by the final rate; default 10000"
    )
    cycle_momentum: bool | None = Field(
        default=None, description="one-cycle: whether momentum goes from 0.95 to 0.85 and back; default true"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        refuse(self._mistakes())
        return self

    @property
    def is_plain(self) -> bool:
        """Whether it is its name and nothing else."""
        return all(value is None for name, value in vars(self).items() if name != "name")

    def _mistakes(self) -> Iterator[str]:
        reads = _READS[self.name]
        for name, value in vars(self).items():
            if name != "name" and value is not None and name not in reads:
                known = ", ".join(reads) or "no further settings"
                yield f"{name} has no effect on the schedule {self.name}, which has {known}"
        if self.milestones is not None and list(self.milestones) != sorted(set(self.milestones)):
            yield f"milestones is {list(self.milestones)}; expected rising numbers"
        if self.name == "step" and (self.every is None) == (self.milestones is None):
            yield "the schedule step needs `every` or `milestones`, one of them"
