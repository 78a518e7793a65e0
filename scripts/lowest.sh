#!/usr/bin/env bash
# The default tests with the lowest versions that pyproject.toml allows, in an environment of their own.
#   scripts/lowest.sh [PYTHON] [arguments of pytest ...]
#   scripts/lowest.sh 3.11 tests/weights
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-3.11}
shift || true
environment=${TMPDIR:-/tmp}/regraft-lowest-$python
export VIRTUAL_ENV=$environment

uv venv --quiet --clear --python "$python" "$environment"
# Without pyproject's exact versions of everything (`constraint-dependencies`).
uv pip install --quiet --no-config --resolution lowest-direct -e '.[heic,onnx,openvino,tiff,tensorboard]'
uv pip install --quiet --no-config pytest pytest-timeout pytest-xdist hypothesis jsonschema scikit-learn
uv pip list | grep -E '^(torch|torchvision|timm|accelerate|safetensors|h5py|pillow|numpy|psutil|pydantic|pyyaml|typer|rich|scipy) '
"$environment/bin/pytest" "$@"
