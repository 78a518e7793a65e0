"""The preprocessing that a model folder stores."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError

triples = st.tuples(*[st.floats(-2, 2)] * 3)
positive = st.tuples(*[st.floats(1e-6, 3)] * 3)


@given(mean=triples, std=positive, channels=st.sampled_from(["RGB", "BGR"]))
def test_values_survive_json_to_the_last_bit(mean: Any, std: Any, channels: Any) -> None:
    value = Preprocessing(PixelProgram((20, 30), "pad", stored=(7, 9)), mean, std, channels)
    assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value


@pytest.mark.parametrize(("channels", "count"), [("L", 1), (("NIR",), 1), (("R", "G", "B", "NIR"), 4)])
def test_grey_and_bands_survive_json(channels: Any, count: int) -> None:
    value = Preprocessing(PixelProgram((8, 8)), (0.4,) * count, (0.2,) * count, channels)
    assert value.num_channels == count
    assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_a_timm_configuration_is_taken_over() -> None:
    cfg = {
        "input_size": (3, 240, 260),
        "mean": (0.5, 0.4, 0.3),
        "std": [0.1, 0.2, 0.3],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
    }
    value = Preprocessing.from_timm_cfg(cfg)
    assert value.pixels == PixelProgram((240, 260), interpolation="bilinear")
    assert (value.mean, value.std, value.channels) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "RGB")
    assert Preprocessing.from_timm_cfg(cfg, size=(64, 64), resize="crop").pixels == PixelProgram(
        (64, 64), "crop", "bilinear", crop_fraction=0.875
    )


def test_an_empty_configuration_means_imagenet() -> None:
    value = Preprocessing.from_timm_cfg({"interpolation": "random"})
    assert value == Preprocessing(PixelProgram((224, 224)))


def test_one_number_stands_for_three() -> None:
    assert Preprocessing.from_timm_cfg({"mean": 0.5, "std": (0.5,)}).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (0.1, 0.2)},
        {"mean": (0.1, 0.2, float("nan"))},
        {"std": (0.1, 0.0, 0.1)},
        {"std": (0.1, float("inf"), 0.1)},
        {"channels": "GRB"},
        {"channels": "L", "mean": (0.5,)},
        {"channels": ()},
        {"channels": ("R", "R", "G")},
        {"channels": ("R", "G", "B", "NIR"), "mean": (0.5,) * 4},
    ],
)
def test_impossible_values_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Preprocessing(PixelProgram((8, 8)), **fields)
    assert len(caught.value.details) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixels": None}, "Stored preprocessing has the fields"),
        ({"extra": 1}, "has the fields .*'extra'"),
        ({"mean": ["a", "b", "c"]}, r"\['a', 'b', 'c'\] is not a colour"),
        ({"std": []}, r"\[\] is not a colour"),
        ({"mean": "red"}, "'red' is not a colour"),
        ({"channels": 5}, "channels is 5"),
        ({"channels": {}}, "channels is {}"),
        ({"channels": [["R"]]}, "channels is .*'R'"),
    ],
)
def test_foreign_fields_are_refused(change: dict[str, Any], said: str) -> None:
    fields = {**Preprocessing(PixelProgram((8, 8))).to_dict(), **change}
    with pytest.raises(SettingsError, match=said):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize(
    ("style", "values"),
    [
        ("caffe", (96.06, -16.78, -113.68)),
        ("tf", (-0.92, -0.22, 0.57)),
        ("torch", (-1.95, -0.29, 1.68)),
        ("raw", (10, 100, 200)),
    ],
)
def test_a_style_does_to_a_pixel_what_keras_does(style: Any, values: tuple[float, ...]) -> None:
    """The colour (10, 100, 200) through `keras.applications.imagenet_utils.preprocess_input` of each mode."""
    from regraft.models.describe.inputs import Normaliser

    value = Preprocessing.styled(style, PixelProgram((2, 2)))
    assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    normaliser = Normaliser(value)
    out = normaliser(normaliser.pixels(np.full((1, 2, 2, 3), (10, 100, 200), np.uint8)))
    np.testing.assert_allclose(out[0, :, 1, 1].numpy(), values, atol=6e-3)


def test_numbers_of_ones_own_on_either_scale() -> None:
    pixels = PixelProgram((2, 2))
    caffe = Preprocessing.from_numbers(pixels, mean=[103.939, 116.779, 123.68], std=1, channels="BGR", scale=255)
    assert caffe == Preprocessing.styled("caffe", pixels)
    assert Preprocessing.from_numbers(pixels, mean=0.5, std=0.25, channels="L").mean == (0.5,)
    assert Preprocessing.from_numbers(pixels, mean=[0, 0], std=1, channels=["VV", "VH"]).channels == ("VV", "VH")
    for mean, std, said in (([0.5, 0.5], 1, "mean is .* for each of 3"), (0, 0, "std is"), (0, [], "not a colour")):
        with pytest.raises(SettingsError, match=said):
            Preprocessing.from_numbers(pixels, mean=mean, std=std, channels="RGB")
