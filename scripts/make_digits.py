"""Write the handwritten digits of `regraft demo` as one small image, from scikit-learn's copy of them.

uv run python scripts/make_digits.py

Data: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository,
doi.org/10.24432/C50P49, CC BY 4.0. A row for each digit: what it is, then its 64 pixels from 0 to 16.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from regraft.cli.verbs.demo import DIGITS

digits = load_digits()
rows = np.concatenate([digits.target[:, None], digits.data], axis=1)
Image.fromarray(rows.astype(np.uint8)).save(DIGITS, optimize=True)
print(f"{DIGITS}: {len(rows)} digits, {DIGITS.stat().st_size:,} bytes")
