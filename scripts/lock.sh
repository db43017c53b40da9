#!/usr/bin/env bash
# Renews requirements.lock and requirements-dev.lock (needs `uv`). CUDA packages are left out: torch pins its own.
set -euo pipefail
cd "$(dirname "$0")/.."
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo "torch==2.13.0" >"$constraints"

lock() { # extra, file
  uv pip compile pyproject.toml --extra "$1" --constraint "$constraints" --universal --python-version 3.11 \
    --no-header --no-annotate --quiet |
    grep -vE '^(nvidia-|triton|cuda-)' >"$2"
}

lock data requirements.lock
lock dev requirements-dev.lock
