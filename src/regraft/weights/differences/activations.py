"""Activations: what a file's network is known to have between its layers, against what the model has."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["activation_findings", "activation_name"]

_NAMES = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "swish": "silu",
    "hardswish": "hard_swish",
}
_GATED = {"weights_in": "silu"}  # DINOv2's SwiGLU has its own activation, whatever the settings say


def activation_name(name: str) -> str:
    """Return the one name of an activation that has several."""
    return _NAMES.get(name.lower(), name.lower())


def activation_findings(pairs: Sequence[Pair], wanted: str, *, told: bool) -> list[Finding]:
    """Return layers behind which the model has another activation.

    Args:
        pairs: What was matched.
        wanted: The activation of the file's network.
        told: Whether that is certain; else networks of the file's names have this one as a rule.
    """
    differ: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        have = pair.target.attributes.get("activation")
        want = _GATED.get(pair.source.name.rpartition(".")[2]) or activation_name(wanted)
        if isinstance(have, str) and have != want and pair.address:
            differ.setdefault((have, want), []).append(pair.target.name)
    return [
        Finding(
            "layout",
            names[0],
            f"the activation behind {some(names)} is {have}; {_certain(want) if told else _maybe(want)} "
            f"(timm: act_layer={want!r}; `--arg act_layer={want}`)",
            "activation",
            have,
            want,
            serious=True,
            layers=tuple(names),
            unknown=not told,
        )
        for (have, want), names in differ.items()
    ]


def _certain(wanted: str) -> str:
    return f"the file's network has {wanted}"


def _maybe(wanted: str) -> str:
    return f"the file does not tell its own, which most often is {wanted} where its layers have these names"
