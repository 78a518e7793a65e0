"""The model card on the hub: what a network was trained on, how good it is and how far, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from regraft.evaluation.tasks import task_of, told
from regraft.models.store.card import described, library_of, pipeline_of, plain
from regraft.models.store.license import NOT_STATED
from regraft.wording import is_number, number, percent, quantity

__all__ = ["hub_card"]

_METRICS = {  # by the names that the hub has for them
    "top1": "accuracy",
    "top5": "top_5_accuracy",
    "auc": "roc_auc",
    "map": "mean_average_precision",
    "miou": "mean_iou",
}
_MOST_ROWS = 50
_FEW = 100


def hub_card(
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    *,
    repo: str,
    base_model: str | None,
    weights_license: str,
    license: str | None,
) -> str:
    """Return README.md of a repository on the hub.

    Args:
        config: config.json of the model folder.
        results: From `results_of`; empty where nothing is known of the training.
        repo: USER/NAME.
        base_model: The hub's repository of the pretrained weights, where there is one.
        weights_license: Of the pretrained weights.
        license: Of this model, as its owner states it; None states none.
    """
    measures = results.get("measures") or {}
    name = repo.rpartition("/")[2]
    metadata = {
        "library_name": library_of(config),
        "pipeline_tag": pipeline_of(config),
        "tags": ["regraft", "vision", pipeline_of(config)],
        **({"base_model": base_model} if base_model else {}),
        **({"license": license} if license else {}),
        **_evaluated(name, config, results),
    }
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    parts = [
        f"# {plain(name)}",
        f"`{config['regraft']['build']['name']}`, fine-tuned with regraft.",
        described(config),
        *_data(results),
        *(_figures(split, record) for split, record in measures.items()),
        *_calibration(measures),
        _limits(config, measures),
        _LICENSE.format(weights=weights_license, own=license or NOT_STATED),
        _use(config, repo),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"


def _evaluated(name: str, config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hub's `metrics` and `model-index`; empty where nothing was measured."""
    entries: list[dict[str, Any]] = []
    for split, record in (results.get("measures") or {}).items():
        dataset = plain(str((results.get("data") or {}).get("name") or "images"))
        entries.append(
            {
                "task": {"type": pipeline_of(config)},
                "dataset": {"name": f"{dataset} ({record.get('label', split)})", "type": dataset, "split": split},
                "metrics": [
                    {
                        "type": _METRICS.get(key, key),
                        "name": text,
                        "value": record[key],
                        "args": {
                            "num_images": record.get("num_images"),
                            "confidence_interval_95": _interval(record, key),
                        },
                    }
                    for key, text in _measured(record)
                ],
            }
        )
    if not entries:
        return {}
    kinds = dict.fromkeys(metric["type"] for entry in entries for metric in entry["metrics"])
    return {"metrics": list(kinds), "model-index": [{"name": plain(name), "results": entries}]}


def _measured(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the name of each figure of a split."""
    yield from ((key, text) for key, text in task_of(record).names.items() if is_number(record.get(key)))


def _interval(record: Mapping[str, Any], key: str) -> list[float] | None:
    limits = (record.get("intervals") or {}).get(key)
    return [float(limit) for limit in limits] if isinstance(limits, list) and all(map(is_number, limits)) else None


def _limits_text(key: str, limits: Sequence[float] | None) -> str:
    return "–" if limits is None else " to ".join(told(key, limit, 1) for limit in limits)


def _data(results: Mapping[str, Any]) -> Iterator[str]:
    data = results.get("data") or {}
    if not data.get("images"):
        return
    counts = ", ".join(f"{quantity(num, 'image')} in {plain(split)}" for split, num in data["images"].items())
    text = f"## Data\n\n{plain(str(data.get('name') or 'images'))}: {counts}."
    chosen = results.get("chosen") or {}
    if chosen:
        text += (
            f" Stages: {', '.join(map(plain, results.get('stages') or ()))}; the network is that of stage"
            f" {plain(str(chosen.get('stage')))}, epoch {chosen.get('epoch')}, chosen by {chosen.get('monitor')} on"
            " the validation images."
        )
    yield text


def _figures(split: str, record: Mapping[str, Any]) -> str:
    """Return the section of one split: its figures, and those of each class."""
    label, num = record.get("label", split), quantity(record.get("num_images"), "image")
    rows = [
        f"| {text} | {told(key, record[key])} | {_limits_text(key, _interval(record, key))} |"
        for key, text in _measured(record)
    ]
    lines = [f"## Results: {label}, {num}", "", "| figure | value | 95 % interval |", "|---|---|---|", *rows]
    if is_number(record.get("loss")):
        lines.append(
            f"| cross-entropy | {number(record['loss'])} | {_limits_text('loss', _interval(record, 'loss'))} |"
        )
    classes = [row for row in record.get("per_class") or () if isinstance(row, dict) and "recall" in row]
    if classes:
        lines += ["", "| class | images | precision | recall |", "|---|---|---|---|"]
        lines += [
            f"| {_in_a_cell(str(row.get('name')))} | {row.get('support')} "
            f"| {percent(row.get('precision'))} | {percent(row.get('recall'))} |"
            for row in classes[:_MOST_ROWS]
        ]
        if len(classes) > _MOST_ROWS:
            lines += ["", f"The other {len(classes) - _MOST_ROWS} classes are in `training/results.json`."]
    return "\n".join(lines)


def _calibration(measures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section on how far probabilities are off, where that was measured."""
    lines = []
    for record in measures.values():
        account = (record.get("calibration") or {}).get("told") or {}
        if is_number(account.get("ece")):
            chance = account.get("ece_by_chance")
            expected = (
                f"; a perfect one would show {percent(chance[0])} to {percent(chance[1])} on so few" if chance else ""
            )
            lines.append(
                f"- {record.get('label')}: probabilities are off by {percent(account['ece'])} on average "
                f"(expected calibration error, {quantity(record.get('num_images'), 'image')}{expected})."
            )
    if lines:
        yield "## Calibration\n\n" + "\n".join(lines)


def _limits(config: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    names_pixels = pipeline_of(config) == "image-segmentation"
    lines = [
        "- It knows the classes above and no others, and names one of them whatever it is shown"
        + (
            "."
            if names_pixels
            else "; `--reject` says `unknown` for images that look like none of those it was trained with."
        ),
        "- Its figures hold for images like those of its data set. Other cameras, places and times may be harder.",
    ]
    tested = {split: record for split, record in measures.items() if not record.get("used_for_selection")}
    if not tested:
        lines.append(
            "- It was not measured on images that had no part in its selection."
            if measures
            else "- Nothing was measured, or nothing is known of it."
        )
    fewest = min((record.get("num_images") or 0 for record in tested.values()), default=_FEW)
    if fewest < _FEW:
        lines.append(f"- It was tested on {quantity(fewest, 'image')}: too few for small differences to mean anything.")
    return "## Limits\n\n" + "\n".join(lines)


def _use(config: Mapping[str, Any], repo: str) -> str:
    text = _USE.format(repo=repo, folder=repo.rpartition("/")[2])
    return text + _TIMM.format(repo=repo) if config["regraft"]["timm_loadable"] else text


def _in_a_cell(name: str) -> str:
    return plain(name).replace("|", "\\|")


_LICENSE = """## Licence

Pretrained weights: {weights}. This model: {own}.
"""
_USE = """## How to use it

```console
$ pip install regraft
$ regraft pull {repo}
$ regraft predict {folder} PHOTOS
```

`pull` checks every file by its hash and replays the golden probes: the network has to give the logits that it gave
where it was trained. Reading, resizing and normalising are those of training (`preprocessing` in `config.json`).
"""
_TIMM = """
timm alone loads the network, and resizes as timm does:

```python
import timm

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
names = model.pretrained_cfg["label_names"]
```
"""
