"""Where pretrained weights come from, and what is said when they cannot be had."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from regraft.errors import WeightsError
from regraft.models.zoo.pretrained import find_pretrained


def test_an_installed_package_goes_first() -> None:
    assert find_pretrained("tf_efficientnet_lite0").suffix == ".pth"


def test_a_hub_that_cannot_be_reached_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[dict[str, object]] = []
    real = huggingface_hub.hf_hub_download

    def download(*args: object, **kwargs: object) -> str:
        asked.append(kwargs)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(WeightsError, match="the hub cannot be reached") as caught:
        find_pretrained("resnet18")
    assert asked == [{"local_files_only": True}], "the library's own retries take half a minute"
    assert "model.weights=none" in str(caught.value)


def test_a_model_without_pretrained_weights() -> None:
    with pytest.raises(WeightsError, match="no pretrained weights"):
        find_pretrained("resnet18d_no_such")
