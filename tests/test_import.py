"""What importing costs: `import regraft` and `regraft --help` without torch, no command what it can do without."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "timm", "torchvision", "accelerate", "sklearn", "h5py")


def loaded_after(code: str) -> str:
    check = f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout


def test_import_is_light() -> None:
    assert loaded_after("import regraft").strip() == "[]"


def test_help_is_light() -> None:
    code = "import sys\nfrom regraft.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_after(code).strip().splitlines()[-1] == "[]"


# What no command needs until it does what it is for; `regraft` with these arguments, one line after the other.
UNUSED = (
    *("torch._dynamo", "torch._inductor", "sympy", "triton", "timm.optim", "accelerate", "transformers"),
    *("scipy", "sklearn", "pandas", "matplotlib", "onnx", "onnxruntime", "keras", "tensorboard"),
)
COMMANDS = """
import shlex, sys
from regraft.cli.main import run

watched = sys.argv[1:]
for line in sys.stdin.read().splitlines():
    sys.argv = ["regraft", *shlex.split(line)]
    code = 0
    try:
        run()
    except SystemExit as end:
        code = end.code or 0
    print(f"regraft {sys.argv[1]}: {code},", *(name for name in watched if name in sys.modules), file=sys.stderr)
"""


def imported_by(*lines: str) -> dict[str, list[str]]:
    """The exit code of each command of one process, and what is imported after it, by its verb."""
    watched = ("torch", "timm", "torchvision", *UNUSED)
    command = [sys.executable, "-c", COMMANDS, *watched]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    told = [line.split() for line in done.stderr.splitlines() if re.match(r"regraft [a-z-]+: \d+,", line)]
    assert [verb for _, verb, *_ in told] == [f"{line.split()[0]}:" for line in lines], done.stderr
    assert {code for _, _, code, *_ in told} == {"0,"}, done.stderr
    return {verb.rstrip(":"): names for _, verb, _, *names in told}


def test_commands_import_what_their_path_needs(tiny_run: Path, tiny_photos: Path, tmp_path: Path) -> None:
    """All in one process, the lightest first; torchvision is there for timm, which has no other way."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    found = imported_by(
        f"inspect '{run / 'model' / 'model.safetensors'}'",
        f"report '{run}'",
        f"resume '{run}'",
        f"predict '{run}' '{tiny_photos / 'blue' / '000.png'}' --engine torch",
        f"evaluate '{run}'",
    )
    for verb in ("inspect", "report", "resume"):
        assert not found[verb], verb
    for verb in ("predict", "evaluate"):
        assert found[verb] == ["torch", "timm", "torchvision"], verb


@pytest.mark.slow
def test_training_imports_no_compiler(tiny_photos: Path, tmp_path: Path) -> None:
    """From photos and the default weights to a report: matching, head and layers, evaluation."""
    options = "--image-size 32 --model test_efficientnet --set model.weights=none --set data.batch_size=8"
    found = imported_by(
        f"find-lr '{tiny_photos}' {options} --stage all --steps 10",
        f"train '{tiny_photos}' --image-size 32 --set data.batch_size=8 --epochs 1 --out '{tmp_path / 'run'}'",
    )
    for verb in ("find-lr", "train"):
        assert found[verb] == ["torch", "timm", "torchvision"], verb


COMPILER = """
import sys
from regraft.compute.late_compiler import defer_compiler
defer_compiler()
defer_compiler()
import timm, torch, torchvision
assert "torch._dynamo" not in sys.modules
assert timm.__spec__.loader is timm.__loader__ and type(timm.__loader__).__name__ == "SourceFileLoader"

from torchvision import tv_tensors
from torchvision.ops import roi_align
image = tv_tensors.Image(torch.ones(3, 4, 4))
assert type(tv_tensors.wrap(torch.zeros(3, 2, 2), like=image)) is tv_tensors.Image
assert sys.modules["torch._dynamo"].__spec__ is not None and "torch._inductor" in sys.modules
assert float(roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2).sum()) == 4
model = timm.create_model("test_resnet").eval()
nodes = timm.models.get_graph_node_names(model)[1]
maps = timm.models.create_feature_extractor(model, [nodes[3]])(torch.zeros(1, 3, 32, 32))
assert list(maps) == [nodes[3]]
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
import timm.optim.kron
assert timm.optim.kron.has_dynamo
"""
EARLIER = """
import sys
{first}
from regraft.compute.late_compiler import defer_compiler
defer_compiler()
import timm, torch
assert type(torch._dynamo).__name__ == "module" and torch._dynamo.__spec__ is not None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [COMPILER, *(EARLIER.format(first=f"import {name}") for name in ("timm", "torchvision", "torch._dynamo"))],
    ids=["later", "timm", "torchvision", "compiler"],
)
def test_whoever_needs_the_compiler_gets_it(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_costs_a_fraction_of_importing_torch() -> None:
    """A ratio in the same run: these machines are noisy, and `--help` must never wait for torch."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        return time.perf_counter() - began

    helps = [seconds("from regraft.cli.main import app; app(['--help'])") for _ in range(3)]
    assert statistics.median(helps) < seconds("import torch, timm") / 3


def imports_of(file: Path) -> Iterator[tuple[str, str]]:
    """Modules of regraft and the names taken from them, wherever in a file, functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "regraft":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "regraft")


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "scripts"])
def test_what_is_imported_from_regraft_exists(folder: str) -> None:
    """Some of it is imported by tests and programs that no default run calls."""
    wanted = {pair: file for file in sorted((ROOT / folder).rglob("*.py")) for pair in imports_of(file)}
    assert len(wanted) > 5
    for (module, name), file in wanted.items():
        found = importlib.import_module(module)
        rooms = [room.name for room in pkgutil.iter_modules(getattr(found, "__path__", ()))]
        assert not name or hasattr(found, name) or name in rooms, f"{file.relative_to(ROOT)}: {module} has no {name}"
