"""A hub of one's own, which `push` and `pull` of these tests ask, without waiting between tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.sharing.fake_hub import TOKEN, FakeHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    constants = "huggingface_hub.constants."
    monkeypatch.setattr(constants + "ENDPOINT", fake.address)
    template = fake.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants + "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants + "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield fake
    fake.close()
