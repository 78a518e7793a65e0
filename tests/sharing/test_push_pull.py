"""A run goes to the hub and comes back the same; what is private stays; what is wrong is told, and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tests.conftest import Cli
from tests.sharing.fake_hub import READER, TOKEN, FakeHub, Repository, stalled, status

import regraft as rg
from regraft import commit
from regraft.run.folder import RunFolder
from regraft.sharing.results import recipe_text, told_path

REPO = "maria/colours"
WRITTEN = Path(__file__).parents[1] / "run" / "written"


@pytest.fixture(scope="module")
def shared_files(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a push of the tiny run puts on the hub."""
    from regraft.sharing.shared_folder import write_shared

    folder = tmp_path_factory.mktemp("shared") / "model"
    write_shared(tiny_run, folder, repo=REPO)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def staged(shared_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pushed was written before: these tests are about the hub."""

    def write(run: Path, out: Path, **asked: object) -> None:
        for name, data in shared_files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)

    monkeypatch.setattr("regraft.sharing.push.write_shared", write)


@pytest.fixture
def filled(hub: FakeHub, shared_files: dict[str, bytes]) -> FakeHub:
    hub.repositories[REPO] = Repository(branches={"main": dict(shared_files)})
    return hub


def test_a_run_goes_there_and_comes_back(
    hub: FakeHub, tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = cli("push", tiny_run, REPO, "--license", "mit", "--message", "First one")
    assert sent.code == 0, sent.err
    assert f"to {hub.address}/{REPO} (commit " in sent.out
    assert sorted(hub.files(REPO)) == [
        *("README.md", "config.json", "manifest.json", "model.safetensors", "probes.safetensors"),
        *("training/recipe.yaml", "training/results.json"),
    ]
    got = cli("pull", REPO)
    assert got.code == 0, got.err
    assert "colours: maria/colours at commit" in got.out
    assert "8 golden probes replayed" in got.out
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tiny_run / "model", tmp_path / "colours")]
    assert weights[0] == weights[1]
    assert (tmp_path / "colours" / "manifest.json").read_bytes() == hub.files(REPO)["manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colours"]
    rows = [rg.predict(model, tiny_photos / "red") for model in (tiny_run, tmp_path / "colours")]
    assert rows[0] == rows[1]
    again = cli("pull", REPO)
    assert (again.code, "already" in again.err) == (7, True)


def test_nothing_private_goes_along(shared_files: dict[str, bytes], tiny_run: Path, tiny_photos: Path) -> None:
    everything = b"\n".join(shared_files.values())
    for word in (str(tiny_photos), str(tiny_run), str(Path.home()), "000.png", "blue/0", TOKEN):
        assert word.encode() not in everything, word
    assert yaml.safe_load(shared_files["training/recipe.yaml"])["data"]["source"] == "colours"
    from safetensors.torch import load as tensors_of

    real = rg.load_model(tiny_run)  # the probes are others than the run's, which are validation images
    probes, own = (
        tensors_of(shared_files["probes.safetensors"]),
        tensors_of((tiny_run / "model/probes.safetensors").read_bytes()),
    )
    assert (probes["images"][: len(own["images"])] - own["images"]).abs().max() > 0.5
    assert (real(probes["images"]) - probes["logits"]).abs().max() < 1e-4


def test_photos_go_along_where_they_are_asked_for(
    hub: FakeHub, tiny_run: Path, tmp_path: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "report.html").write_text("<html>images</html>")
    assert cli("push", run, REPO, "--photos").code == 0
    files = hub.files(REPO)
    assert files["training/report.html"] == b"<html>images</html>"
    assert files["probes.safetensors"] == (run / "model" / "probes.safetensors").read_bytes()
    request.getfixturevalue("staged")
    assert rg.push(run, REPO).files.keys() == files.keys()
    assert "training/report.html" not in files, "what went before and belongs to it no longer is removed"


def test_the_card_says_what_there_is_to_know(shared_files: dict[str, bytes], tiny_run: Path) -> None:
    text = shared_files["README.md"].decode()
    card = ModelCard(text)
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.metrics[0] == "accuracy"
    (accuracy, *_) = card.data.eval_results
    measured = json.loads((tiny_run / "predictions" / "test.json").read_text())
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", measured["top1"])
    assert accuracy.metric_args["confidence_interval_95"] == measured["intervals"]["top1"]
    for part in (
        "## Data",
        "24 images in train",
        "## Results: test, 6 images",
        "| accuracy | 100.00% | 61.0% to 100.0% |",
    ):
        assert part in text
    for part in ("## Calibration", "## Limits", "tested on 6 images: too few", "## Licence", f"regraft pull {REPO}"):
        assert part in text
    config = json.loads(shared_files["config.json"])
    assert (config["id2label"], config["label2id"]["red"]) == ({"0": "blue", "1": "green", "2": "red"}, 2)


def test_a_dry_run_asks_nobody(hub: FakeHub, tiny_run: Path, cli: Cli) -> None:
    shown = cli("push", tiny_run, REPO, "--dry-run")
    assert shown.code == 0
    assert "model.safetensors" in shown.out
    assert "would go to maria/colours; nothing was sent" in shown.out
    assert hub.asked == []


@pytest.mark.usefixtures("staged")
def test_private_is_private_and_branches_are_made(hub: FakeHub, tiny_run: Path, cli: Cli) -> None:
    hub.repositories["maria/public"] = Repository()
    refused = cli("push", tiny_run, "maria/public", "--private")
    assert (refused.code, "everybody sees it" in refused.err) == (2, True)
    assert hub.files("maria/public") == {}
    assert cli("push", tiny_run, REPO, "--private", "--revision", "v2").code == 0
    assert hub.repositories[REPO].private
    assert (hub.files(REPO), len(hub.files(REPO, "v2"))) == ({}, 7)


def test_what_was_fetched_can_be_pushed_on(filled: FakeHub, tmp_path: Path) -> None:
    found = rg.pull(REPO, tmp_path / "colours")
    pushed = rg.push(found.path, "anna/colours")
    assert pushed.files.keys() == filled.files(REPO).keys()
    assert filled.files("anna/colours")["training/results.json"] == filled.files(REPO)["training/results.json"]
    assert b"regraft pull anna/colours" in filled.files("anna/colours")["README.md"]
    assert rg.pull("anna/colours", tmp_path / "b", revision=pushed.commit).commit == pushed.commit


NO_TOKEN = (None, "takes a token of the hub", 2)
PUSHES = {
    "no token": NO_TOKEN,
    "401": (("POST", "/api/repos/create", 401), "asks for another token", 2),
    "403": (("POST", "/api/repos/create", 403), "no right to write", 2),
    "503": (("POST", "/api/repos/create", 503), "it answers 503", 4),
    "later": (("POST", "/commit/", 500), "it answers 500", 4),
}


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(("fault", "said", "code"), PUSHES.values(), ids=PUSHES)
def test_a_push_that_fails_says_why(
    hub: FakeHub,
    tiny_run: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    fault: tuple[str, str, int] | None,
    said: str,
    code: int,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if fault is None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    else:
        hub.faults[fault[:2]] = status(fault[2])
    shown = cli("push", tiny_run, REPO)
    assert (shown.code, said in shown.err) == (code, True), shown.err
    assert TOKEN not in shown.out + shown.err
    assert hub.repositories.get(REPO, Repository()).branches["main"] == {}


@pytest.mark.usefixtures("staged")
def test_another_ones_token_and_names_that_are_none(hub: FakeHub, tiny_run: Path, cli: Cli) -> None:
    shown = cli("push", tiny_run, REPO, "--token", READER)
    assert (shown.code, "no right to write" in shown.err) == (2, True)
    for token in ("", "hf_x y", "hf_x\nEvil: header"):
        shown = cli("push", tiny_run, REPO, "--token", token)
        assert (shown.code, "cannot be one" in shown.err, "hf_x" in shown.err) == (2, True, False)
    for repo in ("colours", "a/b/c", "../b", "a/..", "a/b?c", "https://host/a/b", "a--b/c", "a/b\n"):
        assert cli("pull", repo).code == 2
    assert cli("pull", REPO, "--revision", "../../x").code == 2
    assert {path for _, path, _ in hub.asked} == {"/api/repos/create", f"/api/models/{REPO}"}


def test_a_pull_that_fails_says_why(filled: FakeHub, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cli("pull", "maria/none", "-o", tmp_path / "a")
    assert (shown.code, "There is no 'maria/none'" in shown.err) == (2, True)
    shown = cli("pull", REPO, "-o", tmp_path / "a", "--revision", "v9")
    assert (shown.code, "has no such revision" in shown.err) == (2, True)
    filled.repositories[REPO].private = True
    assert cli("pull", REPO, "-o", tmp_path / "b", "--token", READER).code == 0
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    shown = cli("pull", REPO, "-o", tmp_path / "a")
    assert (shown.code, "asks for another token" in shown.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("where", ["/api/models", "/resolve/"])
def test_a_hub_that_stalls_or_is_down_is_given_up(
    filled: FakeHub, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("regraft.sharing.hub.SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    for fault in (status(503), stalled(0.5)):
        filled.faults = {("GET", where): fault}
        shown = cli("pull", REPO, "-o", tmp_path / "a")
        assert (shown.code, "did not do what it was asked" in shown.err) == (4, True), shown.err
    assert list(tmp_path.iterdir()) == []


def _cut(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = files["model.safetensors"][:-100]


def _flip(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        data = bytearray(files[name])
        data[len(data) // 2] ^= 1
        files[name] = bytes(data)

    return change


def _without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__delitem__(name)


def _with(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(name, data)


def _listing(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        manifest = json.loads(files["manifest.json"])
        manifest["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        files["manifest.json"], files[name] = json.dumps(manifest).encode(), b"x"

    return change


def _other_logits(files: dict[str, bytes]) -> None:
    """A whole repository, by its hashes, whose network is another than that of its probes."""
    from safetensors.torch import load, save

    probes = load(files["probes.safetensors"])
    files["probes.safetensors"] = save({**probes, "logits": probes["logits"] + 1})
    manifest = json.loads(files["manifest.json"])
    digest = hashlib.sha256(files["probes.safetensors"]).hexdigest()
    manifest["files"]["probes.safetensors"] = {"bytes": len(files["probes.safetensors"]), "sha256": digest}
    files["manifest.json"] = json.dumps(manifest).encode()


DAMAGE = {
    "truncated": (_cut, "is not what was pushed: model.safetensors has", 7),
    "a byte of the weights": (_flip("model.safetensors"), "model.safetensors has changed", 7),
    "a byte of the card": (_flip("README.md"), "README.md has changed", 7),
    "other logits": (_other_logits, "golden probes", 4),
    "no probes": (_without("probes.safetensors"), "it has no probes.safetensors", 4),
    "no manifest": (_without("manifest.json"), "it has no manifest.json", 4),
    "a config of timm": (
        _with("config.json", b'{"architecture": "resnet18", "num_classes": 10}'),
        "another program's",
        4,
    ),
    "a config that is no JSON": (_with("config.json", b"\x80\x04."), "another program's", 4),
    "a manifest that is a list": (_with("manifest.json", b"[]"), "manifest.json is damaged", 4),
    "an empty manifest": (_with("manifest.json", b'{"files": {}}'), "does not list all of", 4),
    "a name that leads out": (_listing("../../evil.txt"), "which regraft does not write", 4),
    "an absolute name": (_listing("/etc/evil"), "which regraft does not write", 4),
    "a program": (_listing("model.py"), "which regraft does not write", 4),
    "a large text": (_with("README.md", b" " * 20_001), "its README.md has 20,001 bytes", 4),
}


@pytest.mark.parametrize(("change", "said", "code"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_not_whole_is_refused_and_leaves_nothing(
    filled: FakeHub,
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, bytes]], None],
    said: str,
    code: int,
) -> None:
    monkeypatch.setattr("regraft.sharing.pull.LARGEST_TEXT", 20_000)
    change(filled.files(REPO))
    shown = cli("pull", REPO, "-o", tmp_path / "in" / "a")
    assert (shown.code, said in shown.err) == (code, True), shown.err
    assert list((tmp_path / "in").iterdir()) == []


def test_names_that_steer_or_lead_out_are_not_fetched(filled: FakeHub, tmp_path: Path) -> None:
    files = filled.files(REPO)
    for name in ("../evil", "/etc/evil", "a\x1b[31m", "con", "model.py", ".git/config", "x" * 300, "pickle.bin"):
        files[name] = b"evil"
    found = rg.pull(REPO, tmp_path / "in" / "a")
    assert commit.damage(found.path) is None
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        f"in/a/{name}" for name in files if files[name] != b"evil"
    )


@pytest.mark.usefixtures("staged")
def test_without_a_network_it_is_said(tiny_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for words in (("pull", REPO), ("push", tiny_run, REPO)):
        shown = cli(*words)
        assert (shown.code, "HF_HUB_OFFLINE forbids" in shown.err) == (4, True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    shown = cli("pull", REPO)
    assert (shown.code, "it does not answer" in shown.err) == (4, True)


def test_what_cannot_be_pushed_is_refused(tmp_path: Path, tiny_run: Path, cli: Cli, hub: FakeHub) -> None:
    assert "no model" in cli("push", tmp_path, REPO).err
    folds = tmp_path / "folds"
    folds.mkdir()
    (folds / "folds.json").write_text('{"num_folds": 2}')
    assert "one of its folds" in cli("push", folds, REPO).err
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with (run / "model" / "probes.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\x01\x02")
    shown = cli("push", run, REPO)
    assert (shown.code, "probes.safetensors has changed" in shown.err) == (7, True)
    assert hub.asked == []


@pytest.mark.parametrize("kind", ["finished", "segmentation"])
def test_runs_of_older_versions_can_be_pushed(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    with tarfile.open(WRITTEN / "593bc43" / f"{kind}.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    (recipe,) = (tmp_path / "old").rglob("recipe.yaml")
    rg.push(recipe.parent, REPO)
    assert rg.pull(REPO, tmp_path / "new").num_probes > 0
    assert ("image-segmentation" in (tmp_path / "new" / "README.md").read_text()) == (kind == "segmentation")


def test_paths_are_told_by_their_last_name() -> None:
    told = {
        "/home/maria/photos": "photos",
        "C:\\Users\\maria\\photos": "photos",
        "~/photos": "photos",
        "../other/photos": "photos",
        "file:///home/maria/a.csv": "a.csv",
        "https://maria:secret@host/a/b.csv?token=secret": "https://host/a/b.csv",
        "s3://bucket/a": "s3://bucket/a",
        "photos/cats": "photos/cats",
        "stage:-1": "stage:-1",
        "modelscope:OWNER/NAME/FILE": "modelscope:OWNER/NAME/FILE",
        "/": "data",
    }
    assert {path: told_path(path) for path in told} == told


def test_a_pattern_of_groups_is_no_path_of_this_machine(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / "recipe.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["data"] |= {"group": "/patient[0-9]+/", "source": "/home/me/photos"}
    path.write_text(yaml.safe_dump(settings))
    told = yaml.safe_load(recipe_text(RunFolder(tmp_path / "run")))["data"]
    assert (told["group"], told["source"]) == ("/patient[0-9]+/", "photos")
