#!/usr/bin/env bash
# Build the distributions into dist/, check them, and try the wheel in an empty environment. What the release workflow does.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)
grep -q "^__version__ = \"$version\"" src/regraft/version.py || { echo "src/regraft/version.py has another version than pyproject.toml"; exit 1; }
grep -q "^version: $version$" CITATION.cff || { echo "CITATION.cff has another version than pyproject.toml"; exit 1; }
if [ -n "${GITHUB_REF_NAME:-}" ] && [ "${GITHUB_REF_TYPE:-}" = tag ]; then
  [ "$GITHUB_REF_NAME" = "v$version" ] || { echo "the tag is not v$version"; exit 1; }
  grep -q "^## \[$version\]" CHANGELOG.md || { echo "CHANGELOG.md has no section $version"; exit 1; }
fi

rm -rf dist
uv build --quiet
uvx --quiet twine check --strict dist/*

trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
uv venv --quiet "$trial/venv"
uv pip install --quiet --python "$trial/venv/bin/python" dist/*.whl
(cd "$trial" && venv/bin/regraft --version && venv/bin/regraft info && venv/bin/regraft --lang zh --help > /dev/null)
ls -l dist
