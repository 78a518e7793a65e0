"""The page as one file that opens by double-click and asks nobody: the model and what runs it are inside."""

from __future__ import annotations

import base64
import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from regraft.errors import SettingsError
from regraft.exports.page.frame import Answering, frame, text_of
from regraft.exports.page.runtime import PACKAGE, VERSION, WebRuntime
from regraft.exports.seal import Seal
from regraft.report.html.markup import Html, block, html, join

__all__ = ["offline_page", "require_photos"]

_POLICY = "blob: 'wasm-unsafe-eval'; worker-src blob:; connect-src 'none'"
_NOTICES = "ThirdPartyNotices.txt"  # of onnxruntime, which lies beside the library that proved the model


def offline_page(model: bytes, seal: Seal, title: str, runtime: WebRuntime, outputs: Sequence[str]) -> Html:
    """Return the page.

    Args:
        model: A sealed file.
        seal: What it says of itself.
        title: The heading.
        runtime: What runs the model in a browser.
        outputs: Of the model, by name.
    """
    packed = {"runtime": runtime.script, "binary": runtime.binary, "model": model}
    blocks = [
        html('<script type="text/plain" id="{}">{}</script>', name, _packed(data)) for name, data in packed.items()
    ]
    worker = html('<script type="text/plain" id="worker">{}</script>', text_of("worker.js"))
    answering = Answering(
        text_of("offline.js"),
        promise="Photos stay on this device: the model runs inside this page.",
        ending="This file needs no network.",
        policy=_POLICY,
        data=join([worker, *blocks]),
        licences=_licences(),
    )
    return frame(seal, title, answering, outputs)


def require_photos(seal: Seal) -> None:
    """Raise SettingsError for a model of other bands than a camera gives."""
    bands = seal.preprocessing.pixels.bands
    if bands not in ((), ("R", "G", "B")):
        raise SettingsError(
            f"The model looks at the bands {', '.join(bands)}, and a browser reads red, green and blue alone.",
            "a model of images in colours",
            "`--to onnx`",
        )


def _packed(data: bytes) -> Html:
    return Html(base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii"))


def _licences() -> Html:
    """Return the licence of onnxruntime, and of what is compiled into it."""
    spec = importlib.util.find_spec("onnxruntime")
    notices = Path(spec.origin).with_name(_NOTICES) if spec is not None and spec.origin else None
    parts = {f"{PACKAGE} {VERSION}": text_of("runtime-license.txt")}
    if notices is not None and notices.is_file():
        parts["Notices of third parties"] = Html(block(notices.read_text(encoding="utf-8", errors="replace")))
    texts = join(html("<h4>{}</h4><pre>{}</pre>", name, text) for name, text in parts.items())
    return html("<details><summary>Licences of the software inside</summary>{}</details>", texts)
