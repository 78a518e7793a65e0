"""What a command does while torch is imported: the stored preprocessing, threads in turn, the compiler left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.models.early import short_turns, stored_preprocessing
from regraft.models.folder import load_model


def test_the_preprocessing_is_that_of_the_model(tiny_run: Path) -> None:
    found = stored_preprocessing(tiny_run)
    assert found is not None
    assert found.to_dict() == load_model(tiny_run).regraft_info.preprocessing
    assert stored_preprocessing(tiny_run / "model") == found


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"regraft": 1}', '{"regraft": {"preprocessing": {"mean": 3}}}'])
def test_what_cannot_be_read_is_left_to_loading(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert stored_preprocessing(tmp_path) is None
    assert stored_preprocessing(tmp_path / "none") is None


def test_turns_are_short_for_a_while() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


def test_a_process_without_the_compiler_loads_the_same_and_may_compile_later(tiny_run: Path) -> None:
    """Nothing of the stand-ins is left, and the model's numbers are those of a process that has the compiler."""
    code = """
import json, sys
from regraft.models.early import without_compiler
with without_compiler():
    import torch
    from regraft.models.folder import load_model
    model = load_model(sys.argv[1])
names = [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy"))]
size = model.regraft_info.preprocessing["pixels"]["size"]
with torch.no_grad():
    logits = model(torch.linspace(-1, 1, 3 * size[0] * size[1]).reshape(1, 3, *size))
import torch._dynamo.utils
kept = torch.compiler.disable.__module__, torch._dynamo.utils.__file__ is not None
print(json.dumps([names, logits.tolist(), kept]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny_run)], capture_output=True, text=True, check=True)
    names, logits, kept = json.loads(done.stdout)
    import torch

    model = load_model(tiny_run)
    size = model.regraft_info.preprocessing["pixels"]["size"]
    with torch.no_grad():
        expected = model(torch.linspace(-1, 1, 3 * size[0] * size[1]).reshape(1, 3, *size))
    assert names == []
    assert torch.allclose(torch.tensor(logits), expected, atol=1e-5)
    assert kept == ["torch.compiler", True]
