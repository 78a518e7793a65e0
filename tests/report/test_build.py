"""The report of whole runs, runs that were stopped early, and run folders full of hostile text."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.errors import SettingsError
from regraft.report.build import write_report

MakeRun = Callable[..., Path]


class Page(html.parser.HTMLParser):
    """The tags, attributes and text of a page; complains about tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_finished_run_shows_everything(make_run: MakeRun) -> None:
    page = report(make_run())
    for words in (
        "accuracy (test)",
        "vgg16_notop.h5",
        "2 of 28 8 of 8 adam",
        "rotation: 40, shift: 0.2, shear: 11.5, zoom: 0.2, flip: horizontal, fill: nearest",
        "validation, also used for selection",
        "loss (nats)",
        "block5, epoch 6 (val_loss 0.0517)",
        "2 tensors trained, 26 frozen and compared byte for byte",
        "The optimizer held exactly the trainable tensors",
        "train/cats/page.jpg is an HTML page",
        "Class 'dogs' has 3 pictures that are equal",
        "hidden or system file 4",
        "regraft train photos --model vgg16 --seed 1",
        "2.15.0",
        "broken.jpg is empty",
        "3 min 12 s",
    ):
        assert words in page.text, words
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 84  # for each of the two splits 24 errors, 3 of each class, and 12 that are right
    assert all(str(attrs["src"]).startswith("data:image/jpeg;base64,") for attrs in pictures)
    assert not [attrs for tag, attrs in page.tags if attrs.get("class") in ("warning", "gaps") and tag == "p"]


def test_the_page_is_offline_and_without_scripts(make_run: MakeRun) -> None:
    text = write_report(make_run()).read_text(encoding="utf-8")
    page = Page(text)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "form", "base"})
    for _, attrs in page.tags:
        assert "style" not in attrs  # the policy would drop it
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href"):
            assert re.match(r"data:image/jpeg|#", attrs.get(name) or "#")
    assert "@import" not in text
    assert "url(" not in text


def test_the_same_folder_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_without_a_test_split_every_accuracy_says_so(make_run: MakeRun) -> None:
    page = report(make_run(splits=("val",)))
    assert "accuracy (validation, also used for selection)" in page.text
    assert "Results: validation, also used for selection" in page.text
    assert "Results: test" not in page.text


def test_before_evaluation_the_best_epoch_speaks_with_its_label(make_run: MakeRun) -> None:
    page = report(make_run(splits=()))
    assert "0.0517 best val_loss (validation, also used for selection)" in page.text
    assert "No split was evaluated" in page.text


def test_an_empty_folder_still_gives_a_report(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "This run has no result yet" in page.text
    for name in ("recipe.yaml", "metrics.jsonl", "audit.json", "predictions/"):
        assert name in page.text


STRANGE = b"""{"stages": 3, "splits": [1], "counts": {"matched": "x"}, "per_class": 1, "confusion": [[1]], "best": [],
"class_names": ["a", "b"], "top1": "high", "quarantined": "all", "label": {}, "epoch": {}, "kind": "epoch"}"""


@pytest.mark.parametrize(
    "name",
    ["status.json", "recipe.yaml", "match.json", "audit.json", "splits.json", "metrics.jsonl", "environment.json",
     "command.txt", "model/config.json", "predictions/test.json", "predictions/test.jsonl"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "list", "strange"])
def test_any_file_may_be_absent_or_damaged(make_run: MakeRun, name: str, damage: str) -> None:
    file = make_run() / name
    content = file.read_bytes()
    damaged = {"empty": b"", "cut": content[: len(content) // 2], "list": b"[1, 2]", "strange": STRANGE}
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(damaged[damage])
    page = report(file.parent if file.parent.name == "photos-1" else file.parent.parent)
    if damage == "absent" and name != "predictions/test.json":
        assert name in page.text
    assert "The whole recipe" in page.text or name == "recipe.yaml"
    assert "26 frozen and compared" in page.text or name == "audit.json"


def test_a_record_made_of_holes_is_not_read(make_run: MakeRun) -> None:
    run = make_run()
    with (run / "model" / "config.json").open("r+b") as file:
        file.truncate(1 << 36)
    assert "more than a record needs" in report(run).text


def test_a_run_that_was_stopped_says_where(make_run: MakeRun) -> None:
    run = make_run(splits=())
    status = json.loads((run / "status.json").read_text())
    status |= {"state": "stopped", "stage": "block5", "epoch": 4, "message": "Type: regraft resume photos-1"}
    (run / "status.json").write_text(json.dumps(status))
    page = report(run)
    assert "stopped in stage block5, epoch 4" in page.text
    del status["epoch"]
    (run / "status.json").write_text(json.dumps(status))
    assert "stopped in stage block5 " in report(run).text
    assert "The run was stopped before its end. Type: regraft resume photos-1" in page.text


def test_a_broken_promise_is_shown_in_plain_sight(make_run: MakeRun) -> None:
    run = make_run()
    audit = json.loads((run / "audit.json").read_text())
    audit["stages"][0] |= {"verdict": "violated", "violations": ["features.0.weight moved by 0.1."]}
    (run / "audit.json").write_text(json.dumps(audit))
    page = report(run)
    assert "violated in 1 stage" in page.text
    assert "features.0.weight moved by 0.1." in page.text


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{style}{0.__class__}",
    "line\nbreak\r\x1b[31mred",
    "safe\u202egpj.exe",
    "lone\udc80surrogate",
    "</title></style><svg onload=alert(1)>",
)


def test_hostile_names_are_inert(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(HOSTILE, per_class=20, pictures=[f"/nowhere/{name}.jpg" for name in HOSTILE])
    for name, key in (("match.json", "missing"), ("splits.json", "warnings")):
        record = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(record | {key: list(HOSTILE)}))
    (run / "command.txt").write_text("regraft train '<b>x</b>'\n  --next \u2066line\x1b[0m\n")
    (run / "environment.json").write_text(json.dumps(dict.fromkeys(HOSTILE, HOSTILE[0])))
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b"})
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    for shown in (
        "<script>alert(1)</script>",
        "{style}{0.__class__}",
        r"\x1b[31mred",
        r"safe\u202egpj.exe",
        r"lone\udc80",
    ):
        assert shown in page.text
    assert "image not found or not readable" in page.text


@pytest.mark.parametrize("num_classes", [3, 12, 40, 41, 300])
def test_any_number_of_classes_can_be_read(make_run: MakeRun, num_classes: int) -> None:
    names = [f"class number {i}" for i in range(num_classes)]
    page = report(make_run(names, splits=("val",), per_class=5))
    assert ("is too large to read" in page.text) == (num_classes > 40)
    assert page.text.count(f"class number {num_classes - 1}") >= 2
    assert "All 300 classes" in page.text or num_classes < 300


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        write_report(tmp_path / "nothing")


def test_the_report_needs_no_torch() -> None:
    code = "import sys, regraft.report.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_with_several_classes_count_for_each_and_once_in_all(make_run: MakeRun) -> None:
    run = make_run(splits=())
    stored = json.loads((run / "splits.json").read_text())
    names = stored["class_names"]
    stored["splits"] = {"train": [["a.jpg", names], ["b.jpg", [names[0]]], ["c.jpg", []]]}
    (run / "splits.json").write_text(json.dumps({**stored, "multilabel": True}))
    assert f"class train {names[0]} 2 {names[1]} 1 all 3" in report(run).text


def test_rates_and_waiting_are_shown(make_run: Callable[..., Path]) -> None:
    run = make_run()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps({**line, "data_wait": 0.25}) + "\n" for line in lines))
    page = write_report(run).read_text()
    assert 'aria-label="Learning rate"' in page
    assert "head: -3 at epoch 1" in page
    assert "block5: -5 at epoch 9" in page
    assert "25.0%" in page
    (run / "metrics.jsonl").write_text("".join(json.dumps({**line, "lr": {}}) + "\n" for line in lines))
    assert "Learning rate" not in write_report(run).read_text()


def test_the_time_of_a_resumed_run_is_that_of_all_its_epochs(make_run: MakeRun) -> None:
    run = make_run()
    status = json.loads((run / "status.json").read_text())
    assert "Time 3 min 12 s" in report(run).text
    (run / "status.json").write_text(json.dumps(status | {"seconds": 3.0}))  # since it was resumed
    assert "Time 1 min 23 s" in report(run).text  # 17 epochs of 4.87 s


def test_every_fold_of_many_is_in_the_report(tmp_path: Path) -> None:
    shares = [number / 150 for number in range(150)]
    record = {"num_folds": 150, "recipe": {}, "measures": {"top1": {"mean": 0.5, "sd": 0.3, "folds": shares}}}
    (tmp_path / "folds.json").write_text(json.dumps(record))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'href="fold-150/report.html"' in page
    assert "99.33%" in page, "the measures of the last fold"


def test_folds_of_several_epochs_have_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text('{"num_folds": 3, "recipe": {}}')
    for number in (1, 2, 3):
        fold = tmp_path / f"fold-{number}"
        fold.mkdir()
        epochs = [
            {"kind": "epoch", "stage": "head", "epoch": epoch, "val_calibrated_loss": 1 / epoch, "val_top1": epoch / 9}
            for epoch in (1, 2)
        ]
        (fold / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count('class="key hue-') == 6, "in both charts"
    assert "<strong>0.5" not in page
