"""Sets that hold the true class as often as asked, and images of no known kind, by what a model folder keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY_MODEL, Cli, photos

import regraft as rg
from regraft.evaluation.metrics.scores import roc_auc
from regraft.evaluation.trust.conformal import candidates, nonconformity, score_limit
from regraft.evaluation.trust.judge import Judge
from regraft.evaluation.trust.novelty import FEWEST, KINDS, Evidence, fit_detector, strangeness
from regraft.models.describe.info import ModelInfo
from regraft.models.describe.trust import Detector, Trust
from regraft.models.store.trust_file import TRUST, read_trust, write_trust


def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of six classes that are too sure, and labels that are right about 70 % of the time."""
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 1.5, (num, 6))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < noise.random((num, 1))).sum(1).clip(0, 5)
    sharp = shares**2
    return sharp / sharp.sum(1, keepdims=True), labels


def test_sets_hold_the_true_class_as_often_as_asked() -> None:
    held = []
    for seed in range(200):
        shares, labels = drawn(300, seed)
        limit = score_limit(nonconformity(shares[:100], labels[:100]), 0.9)
        sets = [candidates(row, limit) for row in shares[100:]]
        held.append(np.mean([label in own for own, label in zip(sets, labels[100:], strict=True)]))
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_sets_are_never_empty_and_begin_with_the_most_probable() -> None:
    assert candidates(np.array([0.2, 0.5, 0.3]), 0.1) == [1]
    assert candidates(np.array([0.2, 0.5, 0.3]), 0.75) == [1, 2]


@pytest.mark.parametrize("asked", [0.0, 1.0, 1.5])
def test_a_share_that_cannot_be_is_refused(asked: float) -> None:
    with pytest.raises(rg.SettingsError, match=r"--sets 0\.9"):
        score_limit(np.linspace(0, 1, 50), asked)


def test_few_images_promise_no_more_than_they_can() -> None:
    scores = np.linspace(0, 1, 19)
    assert score_limit(scores, 0.95) == 1.0
    with pytest.raises(rg.SettingsError, match=r"at most 0\.95"):
        score_limit(scores, 0.96)


def clouds(num: int, centres: np.ndarray, known: np.ndarray, seed: int) -> Evidence:
    """Features of classes around their centres, wider along some directions, and the logits of the known classes."""
    noise = np.random.default_rng(seed)
    labels = noise.integers(0, len(centres), num)
    spread = np.linspace(2.0, 0.1, centres.shape[1])
    features = centres[labels] + noise.normal(0, 0.4, (num, centres.shape[1])) * spread
    logits = -((features[:, None] - known) ** 2).sum(2) / 8
    return Evidence(*(torch.from_numpy(part) for part in (features.astype(np.float32), logits, labels)))


def test_strange_images_are_told_without_having_seen_one() -> None:
    centres = np.random.default_rng(0).normal(0, 1, (7, 40))
    known = centres[:5]
    train, val, new = (clouds(num, known, known, seed) for num, seed in ((300, 1), (120, 2), (150, 3)))
    detector, reached = fit_detector(train, val)
    assert set(reached) == set(KINDS)
    assert sum(part.numel() * part.element_size() for part in detector.tensors.values()) < 3e6
    scores = strangeness(detector, new.features, new.logits)
    for strange, least in ((centres[5:], 0.9), (np.full((1, 40), 3.0), 0.99)):
        others = clouds(150, strange, known, 4)
        both = torch.cat([scores, strangeness(detector, others.features, others.logits)])
        assert roc_auc(both.double().numpy(), np.arange(300) >= 150) >= least
    limit = float(detector.typical[int(0.95 * len(detector.typical))])
    assert float((scores > limit).float().mean()) < 0.15


def test_without_features_logits_must_do() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    bare = Evidence(torch.zeros(50, 0), logits, torch.zeros(50, dtype=torch.int64))
    detector, reached = fit_detector(bare, bare)
    assert (detector.kind, reached) == ("energy", {})
    assert len(strangeness(detector, None, logits)) == 50


def test_the_file_reads_back_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / TRUST
    detector = Detector("energy", {}, torch.tensor([-2.0, -1.0]))
    write_trust(path, Trust(torch.tensor([0.1, 0.2]), detector, {"reject": "why"}))
    found = read_trust(path)
    assert found is not None
    assert found.nonconformity is not None
    assert found.nonconformity.tolist() == pytest.approx([0.1, 0.2])
    assert (found.notes, found.detector is not None) == ({"reject": "why"}, True)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(rg.StorageError, match="restore the folder"):
        read_trust(path)
    write_trust(path, Trust(torch.tensor([0.2, 0.1]), None))
    with pytest.raises(rg.StorageError, match="ascending"):
        read_trust(path)
    assert read_trust(tmp_path / "none") is None


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged")
    data = rg.open_data(photos(root / "photos", {"blue": 70, "green": 70, "red": 70}))
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("head", epochs=2, lr=0.03)])
    return rg.train(model, plan, data, out=root / "run", batch_size=16, show=False).path


def test_a_run_keeps_it_in_a_small_file(judged: Path) -> None:
    assert (judged / "model" / TRUST).stat().st_size < 1_000_000
    trust = rg.load_model(judged).regraft_info.trust  # type: ignore[union-attr]
    assert trust.nonconformity is not None  # type: ignore[union-attr]


def test_predict_gives_sets_and_says_unknown(judged: Path, tmp_path: Path, cli: Cli) -> None:
    new = photos(tmp_path / "new", {"blue": 8, "red": 8}, seed=9)
    strange = tmp_path / "strange.png"
    Image.fromarray(np.indices((48, 48)).sum(0).astype(np.uint8) // 6 % 2 * 255).save(strange)
    (new / "bad.jpg").write_bytes(b"")
    plain = [json.loads(line) for line in cli("predict", judged, new, strange, "--json").out.splitlines()]
    result = cli("predict", judged, new, strange, "--json", "--sets", "0.9", "--reject")
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["path"] for row in rows] == [row["path"] for row in plain]
    assert all("candidates" not in row and "typicality" not in row for row in plain)
    known = [row for row in rows if row["error"] is None and row["path"] != str(strange)]
    assert all(row["candidates"] and row["candidates"][0] in row["probabilities"] for row in known)
    assert np.mean([row["prediction"] == "unknown" for row in known]) < 0.4
    (last,) = (row for row in rows if row["path"] == str(strange))
    assert (last["prediction"], last["probability"]) == ("unknown", None)
    assert last["typicality"] <= 0.05
    (bad,) = (row for row in rows if row["error"] is not None)
    assert "candidates" not in bad
    for row, before in zip(rows, plain, strict=True):
        assert row["probabilities"] == pytest.approx(before["probabilities"], abs=1e-6)
    table = cli("predict", judged, new, "--csv", "--sets", "0.9", "--reject").out.splitlines()
    assert table[0].endswith("error,candidates,typicality")
    text = cli("predict", judged, new, strange, "--sets", "0.9", "--reject").out
    assert "{" in text
    assert "unknown\t(typicality" in text


def test_in_python(judged: Path) -> None:
    image = next((judged.parent / "photos" / "red").glob("*.png"))
    (row,) = rg.predict(judged, image, sets=0.9, reject=True)
    assert row.candidates is not None
    assert 0 < (row.typicality or 0) <= 1
    assert rg.predict(judged, image)[0].to_dict().keys() == {
        "path",
        "prediction",
        "probability",
        "probabilities",
        "error",
    }


def test_what_is_not_kept_cannot_be_asked_for(judged: Path, tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    image = next((judged.parent / "photos" / "red").glob("*.png"))
    for option in (["--sets", "0.9"], ["--reject"]):
        result = cli("predict", tiny_run, image, *option)
        assert result.code == 2
        assert "keeps nothing to judge images by" in result.err
    too_much = cli("predict", judged, image, "--sets", "0.9999")
    assert too_much.code == 2
    assert "validation images cannot promise" in too_much.err
    damaged = shutil.copytree(judged, tmp_path / "damaged")
    (damaged / "model" / TRUST).write_bytes(b"no")
    assert cli("predict", damaged, image).code == 7


def test_sets_of_several_views_are_limited_by_validation_images_in_these_views(
    judged: Path, tmp_path: Path, cli: Cli
) -> None:
    splits = json.loads((judged / "splits.json").read_text())
    rows = splits["splits"]["val"]
    names = splits["class_names"]
    paths = [str(Path(splits["source"], row[0])) for row in rows]
    found = rg.predict(judged, paths, sets=0.9, tta="flip")
    inside = [
        (names[row[1]] if isinstance(row[1], int) else row[1]) in (said.candidates or ())
        for row, said in zip(rows, found, strict=True)
    ]
    assert sum(inside) >= 0.9 * len(rows), "they are the images that limit the sets"
    alone = rg.predict(judged, paths[0], tta="flip")[0]
    assert found[0].probabilities == alone.probabilities
    assert "{" in cli("predict", judged, paths[0], "--sets", "0.9", "--tta", "flip").out
    with pytest.raises(rg.SettingsError, match="found on images alone"):
        rg.predict(rg.load_model(judged), paths[0], sets=0.9, tta="flip")
    moved = shutil.copytree(judged / "model", tmp_path / "model")
    with pytest.raises(rg.SettingsError, match="is not a run, and what limits sets"):
        rg.predict(moved, paths[0], sets=0.9, tta="flip")


def test_the_strangest_of_few_is_unknown_and_no_share_is_made_up() -> None:
    """Of 20 validation images the smallest share that can be told is 1 of 21, which is just below 5 %."""
    scores = torch.linspace(-2, -1, FEWEST)  # energies
    info = ModelInfo("tiny", trust=Trust(None, Detector("energy", {}, scores)))
    judged = Judge(info, sets=None, reject=True)(np.full((2, 2), 0.5), np.array([[-9, -9], [9, 9]], np.float32), None)
    shares = [verdict.typicality for verdict in judged]
    assert shares[0] == pytest.approx(1 / (FEWEST + 1))
    assert shares[0] < 0.05
    assert shares[1] == 1
