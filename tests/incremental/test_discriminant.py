"""Classifiers from statistics are those of all images together, in whatever order they came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from regraft.errors import StorageError
from regraft.incremental.calibrate import temperature_of
from regraft.incremental.discriminant import solve
from regraft.incremental.sample import MOST_ROWS, sampled
from regraft.incremental.statistics import Statistics, collected, merged, ordered
from regraft.incremental.stored import read_statistics, write_statistics

Wide = npt.NDArray[np.float64]


def images(names: list[str], each: int, width: int = 12, seed: int = 0) -> Statistics:
    """Statistics of random features around a mean for each class, which follows from its name and the seed alone."""
    parts = [features_of(name, each, width, seed) for name in names]
    labels = np.repeat(np.arange(len(names)), each)
    keys = np.array([hash_of(name, seed, row) for name in names for row in range(each)], dtype=np.uint64)
    features = np.concatenate(parts)
    sample = sampled(features, labels, keys, len(names), counted=True)
    return collected(names, features, labels, sample)


def features_of(name: str, num: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    centre = np.random.default_rng([*name.encode()]).normal(0, 2, width)
    noise = np.random.default_rng([seed, *name.encode()]).normal(0, 1, (num, width))
    return (centre + noise).astype(np.float32)


def hash_of(name: str, seed: int, row: int) -> int:
    return int(np.random.default_rng([*name.encode(), seed, row]).integers(2**63))


def joint(features: Wide, labels: npt.NDArray[np.int64], strength: float, scale: float) -> tuple[Wide, Wide]:
    """Linear discriminant analysis of images that are all there, with the covariance written out.

    The squared length of a mean is taken without what the noise of its images adds to it.
    """
    means = np.array([features[labels == place].mean(0) for place in range(labels.max() + 1)])
    within = (features - means[labels]).T @ (features - means[labels])
    covariance = (within + strength * scale * np.eye(len(within))) / len(features)
    weight = np.linalg.solve(covariance, means.T).T
    noise = np.trace(np.linalg.solve(covariance, within / len(features))) / np.bincount(labels)
    return weight, (noise - (weight * means).sum(1)) / 2


def scatter_of(features: Wide) -> float:
    return float(((features - features.mean(0)) ** 2).sum() / features.shape[1])


def test_the_solution_is_that_of_all_images_at_once() -> None:
    names, width = ["cap", "hat", "shoe"], 20
    features = np.concatenate([features_of(name, 30, width) for name in names]).astype(np.float64)
    labels = np.repeat(np.arange(3), 30)
    old, new = images(["hat", "shoe"], 30, width), images(["cap"], 30, width)
    found = solve(merged(old, new))
    weight, bias = joint(features, labels, found.strength, scatter_of(features))
    assert np.abs(found.weight - weight).max() < 1e-6
    assert np.abs(found.bias - bias).max() < 1e-6


def test_scores_without_an_image_are_those_of_a_solution_without_it() -> None:
    names, width, num = ["a", "b", "c"], 6, 5
    features = np.concatenate([features_of(name, num, width) for name in names]).astype(np.float64)
    labels = np.repeat(np.arange(3), num)
    found = solve(images(names, num, width))
    left_out = found.scores_without(features, labels)
    for row in range(len(labels)):
        rest = np.delete(np.arange(len(labels)), row)
        weight, bias = joint(features[rest], labels[rest], found.strength, scatter_of(features))
        expected = weight @ features[row] + bias
        centred = left_out[row] - left_out[row].mean(), expected - expected.mean()
        assert np.abs(centred[0] - centred[1]).max() < 1e-6


def test_new_classes_with_few_images_are_named() -> None:
    """Ten images of one class against 200 of each of the others, with more features than it has images."""
    others = list("abcdefgh")
    whole = merged(images(others, 200, 120), images(["new"], 10, 120, seed=1))
    found = solve(whole)
    right = found.scores(features_of("new", 200, 120, seed=2)).argmax(1) == whole.class_names.index("new")
    assert right.mean() > 0.95
    for name in others:
        assert (found.scores(features_of(name, 200, 120, seed=2)).argmax(1) == others.index(name)).mean() > 0.95


def test_the_strength_is_that_of_the_least_error_on_single_images_left_out() -> None:
    """Generalised cross-validation stands for leaving one out: their minima are near each other."""
    statistics = images(list("abcd"), 40, 30)
    features = np.concatenate([features_of(name, 40, 30) for name in "abcd"]).astype(np.float64)
    labels = np.repeat(np.arange(4), 40)
    scale = np.linalg.eigvalsh(np.cov(features.T, bias=True) * len(features)).mean()
    centred = features - features.mean(0)
    targets = np.eye(4)[labels] - 0.25
    errors = {}
    for strength in 10.0 ** np.arange(-4, 2.01, 0.25):
        hat = centred @ np.linalg.solve(centred.T @ centred + strength * scale * np.eye(30), centred.T) + 1 / 160
        errors[strength] = float((((targets - hat @ targets) / (1 - np.diag(hat))[:, None]) ** 2).sum())
    chosen = solve(statistics).strength
    best = min(errors, key=lambda strength: errors[strength])
    assert abs(np.log10(chosen / best)) <= 0.5


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["ant", "bee", "cow", "dog", "elk"]), min_size=1, max_size=4, unique=True),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_one_after_the_other_is_both_at_once(names: list[str], seed: int, random: object) -> None:
    """In any order, in any portions, and with more images of classes that are known."""
    old = images(["cat", "dog"], 9)
    parts = [images([name], 3 + len(name), seed=seed + 1) for name in names]
    whole = parts[0]
    for part in parts[1:]:
        whole = merged(whole, part)
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one_by_one = old
    for part in shuffled:
        one_by_one = merged(one_by_one, part)
    first, second = merged(old, whole), one_by_one
    assert first.class_names == second.class_names == tuple(sorted({"cat", "dog", *names}))
    assert (first.counts == second.counts).all()
    solved = solve(first), solve(second)
    assert np.abs(solved[0].weight - solved[1].weight).max() < 1e-6
    assert np.abs(solved[0].bias - solved[1].bias).max() < 1e-6
    assert (
        solved[0].scores(features_of("cow", 5, 12)).argmax(1) == solved[1].scores(features_of("cow", 5, 12)).argmax(1)
    ).all()
    warmth = [temperature_of(found, part.sample) for found, part in zip(solved, (first, second), strict=True)]
    assert abs(warmth[0] / warmth[1] - 1) < 1e-5


def test_rows_follow_names() -> None:
    old = images(["bee", "cow"], 20)
    both = merged(old, images(["ant", "bug"], 20))
    assert both.class_names == ("ant", "bee", "bug", "cow")
    assert (both.sums[[1, 3]] == old.sums).all()
    found = solve(both)
    for row, name in enumerate(both.class_names):
        assert (found.scores(features_of(name, 50, 12, seed=9)).argmax(1) == row).mean() > 0.9


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("b d", "c a", "a b c d"),
        ("2 10", "3", "2 3 10"),
        ("1 2", "0 10", "0 1 10 2"),
        ("road sky car", "bus sky", "road sky car bus"),
    ],
)
def test_the_order_of_names_is_kept(old: str, new: str, expected: str) -> None:
    assert ordered(old.split(), new.split()) == tuple(expected.split())


def test_a_hundred_classes_of_1280_features_take_10_mb_and_come_back_unchanged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names, labels = [f"class {n:03}" for n in range(100)], np.arange(1600) % 100
    features = rng.normal(size=(1600, 1280)).astype(np.float32)
    keys = rng.integers(0, 2**63, 1600).astype(np.uint64)
    statistics = collected(names, features, labels, sampled(features, labels, keys, 100, counted=True))
    assert len(statistics.sample) <= MOST_ROWS
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, statistics, "key")
    assert path.stat().st_size <= 10_000_000
    back = read_statistics(path, "key")
    assert back.class_names == statistics.class_names
    for name in ("counts", "sums", "products"):
        assert (getattr(back, name) == getattr(statistics, name)).all()
    for name in ("features", "labels", "keys", "counted"):
        assert (getattr(back.sample, name) == getattr(statistics.sample, name)).all()
    with pytest.raises(StorageError, match="another network"):
        read_statistics(path, "other")


def test_damaged_statistics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, images(["a", "b"], 4), "key")
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:100],
        whole[:-8],
        whole.replace(b'"F16"', b'"BF16"'),
        whole.replace(b"counts", b"county"),
    ):
        path.write_bytes(content)
        with pytest.raises(StorageError, match="cannot be read"):
            read_statistics(path, "key")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counts", 0),
        ("counts", 2.0**62),
        ("sums", np.nan),
        ("sums", 1e300),
        ("products", np.inf),
        ("products", -1.0),
        ("products", 1e308),
        ("sample_features", np.nan),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, name: str, value: float) -> None:
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, images(["a", "b"], 4), "key")
    with safe_open(path, framework="numpy") as file:
        facts, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors[name].flat[0] = value
    path.write_bytes(save(tensors, metadata=facts))
    with pytest.raises(StorageError, match="cannot be read"):
        read_statistics(path, "key")
    path.write_bytes(save({**tensors, "sums": np.array(1.0)}, metadata=facts))
    with pytest.raises(StorageError, match="cannot be read"):
        read_statistics(path, "key")


def test_probabilities_mean_what_they_say() -> None:
    """The temperature is of images that the scores do not know: it is right for new ones."""
    names = list("abcdef")
    statistics = images(names, 60, 40)
    found = solve(statistics)
    temperature = temperature_of(found, statistics.sample)
    labels = np.repeat(np.arange(6), 300)
    scores = np.concatenate([found.scores(features_of(name, 300, 40, seed=5)) for name in names])

    def loss(warmth: float) -> float:
        logits = scores / warmth
        shifted = logits - logits.max(1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]).mean())

    assert loss(temperature) <= min(loss(warmth) for warmth in np.geomspace(1e-3, 10, 60)) + 0.02
