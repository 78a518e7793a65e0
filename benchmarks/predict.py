"""`regraft predict RUN FOLDER` on JPEG files, process included, against its parts and against a timm loop.

    uv run python benchmarks/predict.py [PHOTOS] [--num 1000] [--rounds 3] [--model tf_efficientnet_lite0] [--size 224]

PHOTOS is a folder of JPEG files; without it, REGRAFT_SHARED/data/dogs-vs-cats-small. The model is written untrained:
speed does not depend on its numbers. Every side is a process of its own, they alternate, medians are compared.

- *parts*: `import torch, timm, PIL`; decoding all files with a thread on each processor; the forward pass of all of
  them, in the precision that regraft predicts in (fp32), with channels last and batch norms folded, on all processors,
  at the best of three batch sizes. Each is measured alone, and they are added up.
- *timm*: `create_dataset`, `create_loader` with a worker on each processor and the same batch size, and its default
  fp32, as its inference script does without options; *timm, tuned* is the same with bf16 and channels last;
- *exported*: `regraft predict FILE.onnx FOLDER`, of the same network after `regraft export` (aim: at most half of what
  the run takes).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = """
import sys, torch, regraft as rg
from pathlib import Path
from regraft.models.store.folder import write_model
model = rg.adapt(rg.build_model(sys.argv[2], seed=0), classes=["cat", "dog"], image_size=int(sys.argv[3])).eval()
images = torch.zeros(1, 3, int(sys.argv[3]), int(sys.argv[3]))
with torch.no_grad():
    write_model(Path(sys.argv[1]) / "model", model, probes={"images": images, "logits": model(images)})
"""
PARTS = """
import sys, time
began = time.perf_counter()
import timm, torch
from PIL import Image
print(time.perf_counter() - began)
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import regraft as rg
from regraft.data.decode.decode import decode
from regraft.evaluation.predict import Predictor
from regraft.compute.numerics import choose_numerics
from regraft.machine.heap import keep_freed_memory
from regraft.compute.program import inference_program

keep_freed_memory()
model, numerics = rg.load_model(sys.argv[1]), choose_numerics("cpu").for_inference
program = Predictor(model, numerics).pixels
paths = sorted(map(str, Path(sys.argv[2]).iterdir()))
began = time.perf_counter()
with ThreadPoolExecutor(numerics.threads) as pool:
    pixels = np.stack(list(pool.map(lambda path: decode(path, program), paths)))
print(time.perf_counter() - began)

def forward(size, num):
    run = inference_program(model, numerics, size)
    run(torch.zeros(size, 3, *program.size))
    began = time.perf_counter()
    for start in range(0, num, size):
        images = torch.from_numpy(pixels[start : start + size]).permute(0, 3, 1, 2)
        run(images.to(numerics.dtype).sub_(127.5).div_(127.5))
    return time.perf_counter() - began

size = min((8, 16, 32), key=lambda size: forward(size, 96))
print(forward(size, len(paths)))
"""
TIMM = """
import os, sys
from contextlib import nullcontext
import timm, torch
from timm.data import create_dataset, create_loader

_, name, photos, side, batch_size, tuned = sys.argv
workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
model = timm.create_model(name, num_classes=2).eval()
cast = nullcontext()
if tuned == "tuned":
    model, cast = model.to(memory_format=torch.channels_last), torch.autocast("cpu", torch.bfloat16)
config = timm.data.resolve_data_config({"input_size": (3, int(side), int(side))}, model=model)
loader = create_loader(
    create_dataset(root=photos, name=""),
    input_size=config["input_size"], batch_size=int(batch_size), use_prefetcher=False, num_workers=workers,
    interpolation=config["interpolation"], mean=config["mean"], std=config["std"], crop_pct=config["crop_pct"],
)
results = []
with torch.inference_mode():
    for images, _ in loader:
        if tuned == "tuned":
            images = images.contiguous(memory_format=torch.channels_last)
        with cast:
            results.append(model(images).float().softmax(-1).numpy())
print(sum(map(len, results)))
"""


def run(*command: str) -> tuple[float, str]:
    """Seconds of a process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def gather(photos: Path, num: int, folder: Path) -> Path:
    """A folder with links to this many JPEG files."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(paths) < num:
        raise SystemExit(f"{photos} has {len(paths)} JPEG files; {num} are needed (--num).")
    folder.mkdir()
    for number in range(num):
        (folder / f"{number:06}.jpg").symlink_to(paths[number * len(paths) // num].resolve())
    return folder


def main() -> None:
    shared = Path(os.environ.get("REGRAFT_SHARED", "../shared")) / "data" / "dogs-vs-cats-small"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path, nargs="?", default=shared)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    for name, default in (("num", 1000), ("rounds", 3), ("size", 224), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    sides: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made, photos = Path(folder) / "run", gather(options.photos, options.num, Path(folder) / "photos")
        run("-c", MODEL, str(made), options.model, str(options.size))
        sealed = Path(folder) / "model.onnx"
        run("-m", "regraft", "-q", "export", str(made), "--out", str(sealed))
        timm = ["-c", TIMM, options.model, str(photos), str(options.size), str(options.batch)]
        for _ in range(options.rounds):
            _, told = run("-c", PARTS, str(made), str(photos))
            for name, seconds in zip(("import", "decode", "forward"), map(float, told.split()), strict=True):
                sides.setdefault(name, []).append(seconds)
            seconds, told = run("-m", "regraft", "predict", str(made), str(photos), "--csv")
            if len(told.splitlines()) != options.num + 1:
                raise SystemExit("regraft predict gave another number of rows than there are files")
            sides.setdefault("regraft", []).append(seconds)
            seconds, told = run("-m", "regraft", "predict", str(sealed), str(photos), "--csv")
            if len(told.splitlines()) != options.num + 1:
                raise SystemExit("regraft predict of the export gave another number of rows than there are files")
            sides.setdefault("exported", []).append(seconds)
            sides.setdefault("timm", []).append(run(*timm, "plain")[0])
            sides.setdefault("timm, tuned", []).append(run(*timm, "tuned")[0])
            print(
                ", ".join(f"{name} {values[-1]:.1f} s" for name, values in sides.items()), file=sys.stderr, flush=True
            )
    median = {name: statistics.median(values) for name, values in sides.items()}
    parts = median["import"] + median["decode"] + median["forward"]
    print(
        f"{options.model} at {options.size} px, {options.num} files: "
        + ", ".join(f"{n} {s:.1f} s" for n, s in median.items())
    )
    print(
        f"regraft takes {median['regraft'] / parts:.2f}x its parts ({parts:.1f} s); "
        f"timm takes {median['timm'] / median['regraft']:.2f}x as long as regraft, "
        f"tuned {median['timm, tuned'] / median['regraft']:.2f}x; "
        f"regraft takes {median['regraft'] / median['exported']:.2f}x as long as its own export"
    )


if __name__ == "__main__":
    main()
