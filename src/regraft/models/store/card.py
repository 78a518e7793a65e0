"""The model card: what a model folder's README.md says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.models.describe.outputs import OUTPUTS
from regraft.visible import visible

__all__ = ["class_names_of", "described", "library_of", "model_card", "pipeline_of", "plain"]


def class_names_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of all classes in a config.json, whose `label_names` has one name for each logit."""
    return tuple(config["regraft"].get("class_names", config["label_names"]))


def model_card(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the README.md of a model folder.

    Args:
        config: Its config.json.
        facts: What is known of the training and its results.
    """
    results = "\n".join(f"- {name}: {value}" for name, value in facts.items()) or "- none recorded"
    loading = (
        'timm.create_model("local-dir:PATH", pretrained=True)  # or rg.load_model("PATH")'
        if config["regraft"]["timm_loadable"]
        else 'regraft.load_model("PATH")'
    )
    return f"""---
library_name: {library_of(config)}
pipeline_tag: {pipeline_of(config)}
base_model: {config["regraft"]["build"]["name"]}
---

# {config["regraft"]["build"]["name"]}, fine-tuned with regraft

{described(config)}

## Results

{results}

## Loading

```python
{loading}
```
"""


def library_of(config: Mapping[str, Any]) -> str:
    """Return the library that loads a model folder, by the name that the hub has for it."""
    return "timm" if config["regraft"]["timm_loadable"] else "regraft"


def pipeline_of(config: Mapping[str, Any]) -> str:
    """Return what a model does, by the name that the hub has for it."""
    return "image-segmentation" if config["regraft"].get("output") == "segmentation" else "image-classification"


def described(config: Mapping[str, Any]) -> str:
    """Return what a config.json says of its classes, its decisions, its probabilities and its input, for people."""
    class_names = class_names_of(config)
    names = ", ".join(plain(name) for name in class_names[:20]) + (" ..." if len(class_names) > 20 else "")
    height, width = config["pretrained_cfg"]["input_size"][1:]
    return f"""Classes ({len(class_names)}): {names}
{_decision(config["regraft"])}{_calibration(config["regraft"])}
Input: {width}x{height} pixels, {config["pretrained_cfg"]["crop_mode"]} resize, mean {config["pretrained_cfg"]["mean"]},
std {config["pretrained_cfg"]["std"]} (the whole program is in `config.json`)."""


def plain(name: str) -> str:
    """Return a class's name on one line, with what steers a terminal spelt out."""
    return visible(" ".join(name.split()))


def _decision(section: Mapping[str, Any]) -> str:
    """Return the card's paragraph on output and thresholds; empty for a softmax."""
    if "thresholds" not in section:
        return ""
    kind = OUTPUTS[section["output"]].logits_name
    shown = [f"{plain(name)} from {value:.3g}" for name, value in list(section["thresholds"].items())[:20]]
    more = " ..." if len(section["thresholds"]) > 20 else ""
    return f"""
Output: {kind}; named by probability: {", ".join(shown)}{more} (thresholds chosen on validation images;
`config.json` has them all).
"""


def _calibration(section: Mapping[str, Any]) -> str:
    """Return the card's paragraph on what logits are divided by; empty where that is nothing."""
    if "calibration" not in section:
        return ""
    temperatures = section["calibration"]["temperatures"]
    if temperatures == [1.0]:
        return ""
    low, high = min(temperatures), max(temperatures)
    shown = f"{low:.3g}" if len(temperatures) == 1 else f"{low:.3g} to {high:.3g}, one for each class"
    return f"""
Probabilities: regraft divides the logits by a temperature first ({shown}), fitted on
{section["calibration"]["num_images"]:,} validation images; the logits themselves are the network's own.
"""
