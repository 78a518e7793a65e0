"""Which optimizers a stage may name: those of timm whose state can be saved and restored, `auto` and `lbfgs`.

A recipe is checked without torch, so the names stand here; `regraft.plan.optimizers` knows what they do.
"""

from __future__ import annotations

from regraft.errors import nearest

__all__ = ["OPTIMIZERS", "optimizer_mistake"]

OPTIMIZERS = (
    *("auto", "lbfgs", "adabelief", "adadelta", "adafactor", "adafactorbv", "adafactorbvc", "adagrad", "adam"),
    *("adamax", "adamc", "adamp", "adamuon", "adamw", "adamwlegacy", "adan", "adanw", "adopt", "adoptc", "adoptw"),
    *("cadafactor", "cadafactorbv", "cadafactorbvc", "cadamc", "cadamp", "cadamw", "cadan", "cadanw", "cadopt"),
    *("cadoptc", "cadoptw", "clamb", "clambw", "claprop", "clion", "clionc", "cmars", "cnadamc", "cnadamw"),
    *("crmsproptf", "csgdc", "csgdp", "csgdw", "lamb", "lambc", "lambcd", "lambcw", "lambw", "laprop", "lapropc"),
    *("larc", "lars", "lion", "lionc", "madgrad", "madgradw", "mars", "momentum", "muon", "nadam", "nadamc"),
    *("nadamlegacy", "nadamuon", "nadamw", "nesterov", "nesterovw", "nlarc", "nlars", "nmuon", "novograd"),
    *("novogradc", "novogradw", "radabelief", "radam", "radamlegacy", "radamw", "rmsprop", "rmsproptf", "rmsproptfc"),
    *("rmsproptfw", "sgd", "sgdc", "sgdp", "sgdw"),
)
# Others of timm's, by how their names begin.
_UNUSABLE = {
    "adahessian": "needs second derivatives, which regraft's step does not compute",
    "bnb": "needs the package bitsandbytes, which regraft does not use",
    "fused": "needs the package apex, which regraft does not use",
    "kron": "keeps random numbers of its own, so a resumed run would not be bit-exact",
}


def optimizer_mistake(name: str) -> str | None:
    """Say why a stage cannot have this optimizer; None where it can."""
    if name in OPTIMIZERS:
        return None
    reason = next((reason for start, reason in _UNUSABLE.items() if name.startswith(start)), None)
    if reason is not None:
        return f"{reason}; choose another, such as adamw"
    near = nearest(name, OPTIMIZERS)
    return f"{name!r} is not an optimizer that regraft knows" + (f"; did you mean {near}?" if near else "")
