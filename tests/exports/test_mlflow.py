"""A folder that MLflow loads says what the run says; the real MLflow is asked in a process of its own."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import Cli
from tests.segmentation import scenes_in

import regraft as rg
from regraft import commit
from regraft.exports.other.mlflow import write_mlflow
from regraft.exports.running.mlflow_model import MlflowModel
from regraft.exports.running.session import SealedSession
from regraft.exports.sealed_run import SealedRun

WRITTEN = Path(__file__).parents[1] / "run" / "written"


@pytest.fixture(scope="module")
def folder(sealed: rg.Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's sealed file, as MLflow loads it."""
    out = tmp_path_factory.mktemp("mlflow") / "tiny"
    data = sealed.path.read_bytes()
    write_mlflow(out, SealedRun(data, SealedSession(data).seal, "", network=None, contents=[]))  # type: ignore[arg-type]
    return out


def images_of(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*.png"))[::5]


def test_the_folder_holds_what_mlflow_reads(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        *("MLmodel", "README.md", "conda.yaml", "manifest.json", "model.onnx", "python_env.yaml", "requirements.txt")
    ]
    assert commit.damage(folder) is None
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    model = importlib.import_module(flavor["loader_module"])._load_pyfunc(str(folder / flavor["data"]))
    assert isinstance(model, MlflowModel)
    needed = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in needed] == ["regraft", "numpy", "onnxruntime", "pillow"]
    assert "mlflow.pyfunc.load_model(FOLDER)" in (folder / "README.md").read_text()


def test_rows_are_those_of_the_run(folder: Path, tiny_run: Path, tiny_photos: Path) -> None:
    paths = images_of(tiny_photos)
    rows = MlflowModel(folder / "model.onnx").rows([path.read_bytes() for path in paths] + [b"no image"])
    wanted = rg.predict(tiny_run, paths)
    assert [row["prediction"] for row in rows] == [*(row.prediction for row in wanted), None]
    assert rows[-1]["error"]
    for row, of_run in zip(rows, wanted, strict=False):
        assert row["probabilities"] == pytest.approx(of_run.probabilities, abs=1e-5)


def test_paths_are_not_opened(folder: Path, tiny_photos: Path) -> None:
    with pytest.raises(rg.SettingsError, match="Image 0 is str"):
        MlflowModel(folder / "model.onnx").rows([str(images_of(tiny_photos)[0])])


def test_names_that_are_no_folder_are_refused(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    refused = cli("export", tiny_run, "--to", "mlflow", "-o", tmp_path / "tiny.onnx")
    assert (refused.code, "tiny`" in refused.err) == (2, True)
    (tmp_path / "there").mkdir()
    refused = cli("export", tiny_run, "--to", "mlflow", "-o", tmp_path / "there")
    assert (refused.code, "already" in refused.err) == (7, True)
    assert cli("export", tiny_run, "-o", tmp_path / "nothing").code == 2


PROGRAM = """
import base64, json, sys
import mlflow, pandas
from mlflow.pyfunc import scoring_server
folder, *paths = sys.argv[1:]
model = mlflow.pyfunc.load_model(folder)
contents = [open(path, "rb").read() for path in paths]
table = model.predict(pandas.DataFrame({"image": contents}))
asked = json.dumps({"dataframe_records": [{"image": base64.b64encode(data).decode()} for data in contents]})
served = scoring_server.invocations(asked, "application/json", model, model.metadata.get_input_schema())
rows = table.to_dict("records")
for row in rows:
    row["mask_png"] = base64.b64encode(row.get("mask_png") or b"").decode()
print(json.dumps({"rows": rows, "served": json.loads(served.response), "torch": "torch" in sys.modules}))
"""

NO_REGISTRY = ("Failed to fetch", "network was disabled")  # what uv says of it


def asked_of_mlflow(folder: Path, paths: list[Path]) -> dict[str, object]:
    """What the real MLflow makes of a folder, in an environment of its own beside this one."""
    packages = ("mlflow-skinny==3.17.2", "pandas", "onnxruntime", "pillow", "pyyaml", "pydantic", "psutil")
    needs = [part for package in packages for part in ("--with", package)]
    tools = ["uv", "run", "--no-project", "--python", sys.executable]
    command = [*tools, *needs, "python", "-c", PROGRAM, str(folder), *map(str, paths)]
    source = str(Path(rg.__file__).parents[1])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": source}
    )
    if "Traceback" not in done.stderr and any(told in done.stderr for told in NO_REGISTRY):
        pytest.skip(f"needs MLflow from the package registry, which did not answer: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.packages
def test_mlflow_gives_what_predict_gives(tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    made = cli("export", tiny_run, "--to", "mlflow", "-o", tmp_path / "tiny", "--verify", "12")
    assert made.code == 0, made.err
    assert "12 odd images say the same" in made.out
    paths = images_of(tiny_photos)
    found = asked_of_mlflow(tmp_path / "tiny", paths)
    wanted = rg.predict(tiny_run, paths)
    for rows in (found["rows"], found["served"]["predictions"]):  # type: ignore[index,call-overload]
        assert [row["prediction"] for row in rows] == [row.prediction for row in wanted]
        for row, of_run in zip(rows, wanted, strict=True):
            assert row["probabilities"] == pytest.approx(of_run.probabilities, abs=1e-5)
    assert found["torch"] is False


@pytest.mark.slow
def test_masks_are_those_of_the_run(tmp_path: Path) -> None:
    with tarfile.open(WRITTEN / "593bc43" / "segmentation.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    (recipe,) = (tmp_path / "old").rglob("recipe.yaml")
    found = rg.export(recipe.parent, tmp_path / "scenes", to="mlflow", verify=2)
    (image, *_) = sorted(scenes_in(tmp_path / "data").rglob("*.png"))
    (row,) = MlflowModel(found.path / "model.onnx").rows([image.read_bytes()])
    (wanted,) = rg.predict_masks(recipe.parent, str(image), engine="torch")
    assert (np.asarray(Image.open(io.BytesIO(row["mask_png"]))) == wanted.mask).mean() >= 0.999
    assert row["shares"].keys() == wanted.shares.keys()
