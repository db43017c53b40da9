#!/usr/bin/env bash
# Renews requirements.lock and requirements-dev.lock (needs `uv`). CUDA packages are left out: torch pins its own.
set -euo pipefail
cd "$(dirname "$0")/.."
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo "torch==2.13.0" >"$constraints"

lock() { # file, extras ...
  local file=$1 extras=()
  shift
  for extra in "$@"; do extras+=(--extra "$extra"); done
  uv pip compile pyproject.toml "${extras[@]}" --constraint "$constraints" --universal --python-version 3.11 \
    --no-header --no-annotate --quiet |
    grep -vE '^(nvidia-(cu|nccl|nv|cufile)|triton|cuda-)' >"$file"
}

lock requirements.lock azure data kubernetes
lock requirements-dev.lock dev
