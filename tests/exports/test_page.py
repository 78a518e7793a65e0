"""`regraft export --to html`: one page that opens from a file, asks nobody, and says what `predict` says."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.browser import Browser, browser
from tests.conftest import COLOURS, TINY_MODEL, Cli, photo, photos
from tests.segmentation import scenes_in

import regraft as rg
from regraft.exports.page import runtime
from regraft.exports.page.offline import offline_page
from regraft.exports.page.runtime import WebRuntime
from regraft.exports.running.session import SealedSession

MODULE = "var a=import.meta.url;var b=2;export{a as Tensor,b as default};\n//# sourceMappingURL=x"


def package(path: Path, module: str = MODULE) -> Path:
    """A file like that of onnxruntime-web."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in ((runtime._SCRIPT, module.encode()), (runtime._BINARY, b"\0asm")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of onnxruntime-web, in a file; the cache is empty."""
    path = package(tmp_path / "fake.tgz")
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    return path


def unpacked(page: str, name: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1]))


def test_one_file_with_everything_inside(tiny_run: Path, tmp_path: Path, fake: Path, cli: Cli) -> None:
    out = tmp_path / "cats & dogs.html"
    result = cli("export", tiny_run, "--to", "html", "-o", out, "--verify", "0", "--runtime", fake)
    assert result.code == 0, result.err
    assert "It opens in a browser, without a network." in result.out
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"fake.tgz", out.name}
    page = out.read_text(encoding="utf-8")
    assert "<title>cats &amp; dogs</title>" in page
    assert "Permission is hereby granted" in page
    assert SealedSession(unpacked(page, "model")).seal.class_names == ("blue", "green", "red")
    assert unpacked(page, "binary") == b"\0asm"
    assert unpacked(page, "runtime") == b"var a=self.location.href;var b=2;self.ort={Tensor:a,default:b};\n"
    assert not re.search(r'(src|href)="(?!data:,")', page), "the page names another file"
    assert runtime.web_runtime().binary == b"\0asm", "the file was not kept"


def test_its_policy_names_its_own_style_and_script(sealed: rg.Export) -> None:
    page = page_of(sealed)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "connect-src 'none'" in policy[1]
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy[1]


def page_of(sealed: rg.Export, **changes: object) -> str:
    data = sealed.path.read_bytes()
    seal = dataclasses.replace(SealedSession(data).seal, **changes)  # type: ignore[arg-type]
    return offline_page(data, seal, "tiny", WebRuntime(b"", b""), ["probabilities", "typicality"])


def test_names_are_text_whatever_they_hold(sealed: rg.Export) -> None:
    hostile = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202egreen")
    page = page_of(sealed, class_names=hostile)
    assert "<script>alert" not in page
    assert "<img" not in page
    facts = re.search(r'id="facts">(.*?)</script>', page)
    assert facts is not None
    assert "\u202e" not in page
    assert json.loads(facts[1])["names"] == [*hostile[:2], "\\u202egreen"]


def test_where_the_runtime_comes_from(
    tiny_run: Path, tmp_path: Path, fake: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cats.html"
    (tmp_path / "other.tgz").write_bytes(b"something else")
    result = cli("export", tiny_run, "-o", out, "--runtime", tmp_path / "other.tgz")
    assert result.code == 2
    assert "is not onnxruntime-web-" in result.err
    monkeypatch.setenv("PATH", "")
    result = cli("export", tiny_run, "-o", out)
    assert result.code == 2
    assert "npm is not installed" in result.err
    assert "--runtime onnxruntime-web-" in result.err
    result = cli("export", tiny_run, "-o", tmp_path / "cats.onnx", "--runtime", fake)
    assert result.code == 2
    assert "only a page carries one" in result.err
    assert not list(tmp_path.glob("cats.*"))


def test_npm_is_asked_once_and_not_believed(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    gives = [b"not what was asked for", fake.read_bytes()]

    def pack(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[1:])
        (Path(command[-1]) / runtime.FILE).write_bytes(gives[len(asked) - 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(runtime.shutil, "which", lambda name: "/bin/npm")
    monkeypatch.setattr(runtime.subprocess, "run", pack)
    with pytest.raises(rg.SettingsError, match="another file"):
        runtime.web_runtime()
    assert runtime.web_runtime().binary == b"\0asm"
    assert runtime.web_runtime().binary == b"\0asm"
    assert [command[:2] for command in asked] == [["pack", f"onnxruntime-web@{runtime.VERSION}"]] * 2


def test_bands_that_no_browser_reads_are_refused(sealed: rg.Export) -> None:
    from regraft.exports.page.offline import require_photos

    seal = SealedSession(sealed.path).seal
    pixels = dataclasses.replace(seal.preprocessing.pixels, bands=("R", "G", "B", "NIR"))
    preprocessing = dataclasses.replace(
        seal.preprocessing, pixels=pixels, channels=pixels.bands, mean=(0.5,) * 4, std=(0.5,) * 4
    )
    with pytest.raises(rg.SettingsError, match="red, green and blue alone"):
        require_photos(dataclasses.replace(seal, preprocessing=preprocessing))


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def real_runtime() -> None:
    """onnxruntime-web itself, fetched once by npm; tests are skipped, with the reason, where it cannot be."""
    try:
        runtime.web_runtime()
    except rg.SettingsError as error:
        pytest.skip(f"the page's runtime comes from npm, which gives none here: {str(error).splitlines()[0]}")


@pytest.mark.slow
@pytest.mark.usefixtures("real_runtime")
class TestInABrowser:
    def test_it_says_what_predict_says_and_asks_nobody(self, tiny_run: Path, tmp_path: Path, page: Browser) -> None:
        out = rg.export(tiny_run, tmp_path / "tiny.html", verify=0).path
        assert out.stat().st_size < 12e6
        files = [photo(tmp_path / "blue.png", (40, 60, 200), 1), photo(tmp_path / "red.webp", (200, 50, 40), 2)]
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        files.append(tmp_path / "turned.jpg")
        shades = np.linspace(0, 255, 200 * 300 * 3).reshape(200, 300, 3).astype(np.uint8)
        Image.fromarray(shades).save(files[-1], exif=exif, quality=90)
        wanted = rg.predict(tiny_run, files)
        page.open(out.as_uri())
        page.drop(files)
        self.assert_same(page, wanted)
        assert [one for one in page.requests if not one.startswith(("blob:null/", "data:,"))] == []
        assert page.problems == []

    def test_it_does_not_know_what_is_strange(self, tmp_path: Path, page: Browser) -> None:
        data = rg.open_data(photos(tmp_path / "colours", dict.fromkeys(COLOURS, 50)))
        model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
        run = rg.train(model, rg.make_plan(model, [rg.Stage("head")]), data, out=tmp_path / "run", show=False)
        out = rg.export(run.path, tmp_path / "colours.html", verify=0).path
        files = [photo(tmp_path / "blue.png", COLOURS["blue"], 1), tmp_path / "strange.png"]
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[::8] = 255
        Image.fromarray(stripes).save(files[-1])
        wanted = rg.predict(run.path, files, reject=True)
        assert [row.prediction for row in wanted] == ["blue", "unknown"]
        page.open(out.as_uri())
        page.drop(files)
        self.assert_same(page, wanted)
        assert "Don’t know" in page.value("document.querySelectorAll('.photo')[1].innerText")

    def assert_same(self, page: Browser, wanted: list[rg.Prediction]) -> None:
        page.wait(f"document.querySelectorAll('.photo[aria-busy=false]').length === {len(wanted)}")
        cards = page.value("[...document.querySelectorAll('.photo')].map(card => ({...card.dataset}))")
        for card, row in zip(cards, wanted, strict=True):
            assert card["prediction"] == row.prediction
            np.testing.assert_allclose(json.loads(card["shares"]), list(row.probabilities.values()), atol=1e-2)

    def test_a_phone_a_dark_room_and_a_file_that_is_no_image(
        self, tiny_run: Path, tmp_path: Path, page: Browser
    ) -> None:
        out = rg.export(tiny_run, tmp_path / ("a-name-that-has-no-blank-in-it-" * 4 + ".html"), verify=0).path
        long = photo(tmp_path / ("a-long-name-" * 12 + ".png"), (40, 60, 200), 1)
        (tmp_path / "text.png").write_text("no image")
        page.open(out.as_uri(), 400, 800, dark=True, phone=True)
        page.choose("#choose", [long, tmp_path / "text.png"])
        page.wait("document.querySelectorAll('.photo[aria-busy=false]').length === 2")
        assert "cannot be read as an image" in page.value("document.querySelector('.failed').innerText")
        assert page.value("document.documentElement.scrollWidth") == 400
        assert page.value("getComputedStyle(document.querySelector('.camera')).display") != "none"
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
        page.value("document.getElementById('clear').click()")
        assert page.value("document.querySelectorAll('.photo').length") == 0

    def test_masks_lie_over_the_photo(self, tmp_path: Path, page: Browser, cli: Cli) -> None:
        run = tmp_path / "run"
        trained = cli(
            *("train", scenes_in(tmp_path / "scenes"), "--model", "unet", "--set", "model.args.encoder=test_resnet"),
            *(
                "--set",
                "model.weights=none",
                "--image-size",
                "32",
                "--stages",
                "decoder",
                "--epochs",
                "1",
                "--out",
                run,
            ),
        )
        assert trained.code == 0, trained.err
        out = rg.export(run, tmp_path / "scenes.html", verify=0).path
        image = next((tmp_path / "scenes/test/images").iterdir())
        (wanted,) = rg.predict_masks(run, [image])
        page.open(out.as_uri())
        page.drop([image])
        page.wait("document.querySelectorAll('.photo[aria-busy=false]').length === 1")
        assert page.value("[...document.querySelectorAll('canvas')].map(one => [one.width, one.height])") == [[64, 48]]
        found = json.loads(page.value("document.querySelector('.photo').dataset.shares"))[:3]
        np.testing.assert_allclose(found, list(wanted.shares.values()), atol=1e-2)
