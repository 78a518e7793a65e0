"""What `doctor.py` runs beside regraft, each in an environment of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from peers import environment, timed

PEERS = {
    "cleanvision": ["cleanvision==0.3.7"],
    "imagededup": ["imagededup==0.3.3.post2"],
    "cleanlab": ["cleanlab==2.9.0", "scikit-learn==1.9.1"],
}

PEER_PAIRS = {
    "cleanvision near": """
from itertools import combinations
from cleanvision import Imagelab
lab = Imagelab(data_path=ROOT)
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}})
sets = lab.info["near_duplicates"]["sets"] + lab.info["exact_duplicates"]["sets"]
pairs = [pair for group in sets for pair in combinations(sorted(map(name, group)), 2)]
""",
    "imagededup phash": """
from imagededup.methods import PHash
found = PHash().find_duplicates(image_dir=ROOT, max_distance_threshold=10)
pairs = {tuple(sorted((name(one), name(two)))) for one, near in found.items() for two in near}
""",
    "imagededup cnn": """
from imagededup.methods import CNN
found = CNN().find_duplicates(image_dir=ROOT, min_similarity_threshold=0.9)
pairs = {tuple(sorted((name(one), name(two)))) for one, near in found.items() for two in near}
""",
}
PEER_FRAME = """
import contextlib, json, os, sys
ROOT = sys.argv[1]
name = os.path.basename
with contextlib.redirect_stdout(sys.stderr):
{body}
print(json.dumps(sorted(map(list, set(map(tuple, pairs))))))
"""


def peer_pairs(peer: str, way: str, root: Path) -> list[tuple[str, str]]:
    body = "".join(f"    {line}\n" for line in PEER_PAIRS[f"{peer} {way}"].strip().splitlines())
    printed = run_peer(peer, PEER_FRAME.format(body=body), str(root / "images"))
    return [(one, two) for one, two in json.loads(printed)]


def run_peer(peer: str, script: str, *arguments: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        _, printed = timed([str(environment(peer, PEERS[peer])), file.name, *arguments])
    return printed.strip().splitlines()[-1]


CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
given = np.load(sys.argv[1])
model = LogisticRegression(max_iter=400)
shares = cross_val_predict(model, given["features"], given["labels"], cv=5, method="predict_proba")
scores = {way: get_label_quality_scores(given["labels"], shares, method=way).tolist()
          for way in ("self_confidence", "normalized_margin")}
print(json.dumps(scores))
"""
