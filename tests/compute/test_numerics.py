"""What to compute with: `auto` is resolved, what is not there is refused in words."""

from __future__ import annotations

import pytest
import torch

from regraft.compute.numerics import choose_numerics
from regraft.errors import SettingsError


@pytest.mark.usefixtures("one_thread")
def test_auto_is_resolved_to_what_this_machine_has() -> None:
    numerics = choose_numerics()
    assert numerics.device in ("cpu", "cuda", "mps")
    assert numerics.precision in ("fp32", "bf16")
    assert numerics.threads >= 1
    assert numerics.memory_format is torch.channels_last


@pytest.mark.usefixtures("one_thread")
def test_what_is_asked_for_is_what_is_used() -> None:
    numerics = choose_numerics("cpu", "bf16", 1, channels_last=False)
    expected = {"device": "cpu", "precision": "bf16", "channels_last": False, "threads": 1, "inference": "bf16"}
    assert numerics.to_dict() == expected
    assert numerics.dtype is torch.bfloat16
    assert numerics.memory_format is torch.contiguous_format
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("precision", "inference", "expected"),
    [
        ("auto", "auto", "fp32"),
        ("bf16", "auto", "bf16"),
        ("bf16", "fp32", "fp32"),
        ("fp32", "auto", "fp32"),
        ("auto", "bf16", "bf16"),
    ],
)
def test_what_is_said_is_computed_in_fp32_unless_somebody_asks(precision: str, inference: str, expected: str) -> None:
    numerics = choose_numerics("cpu", precision, 1, inference=inference)
    assert numerics.inference == expected
    assert numerics.for_inference.precision == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("gpu",), "Unknown device 'gpu'"),
        (("cuda:first",), "Unknown device"),
        (("",), "Unknown device"),
        (("cpu:3",), "has 1 of that kind"),
        (("cpu", "int8"), "Unknown precision 'int8'"),
        (("cpu", "fp16"), "fp16"),
        (("cpu", "fp32", 0), "threads is 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        choose_numerics(*arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="available here: cpu"):
        choose_numerics("cuda")
