#!/usr/bin/env bash
# Renews the locks (needs `uv`): requirements.lock, requirements-dev.lock, and those of the image in docker/, with hashes.
# Pins that still fit stay as they are; scripts/lock.sh --upgrade takes the newest of everything.
# CUDA packages are left out of the first two: torch pins its own. What only reports on its use is left out of all, and
# of the image; openvino, which names it as a requirement, does without it.
#
# The hashes of torch's CPU builds come from an index that has them: TORCH_CPU_INDEX=<its address> scripts/lock.sh
# Without it docker/torch-cpu.lock stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
TORCH=2.13.0
options=("$@")
cuda='^(nvidia-(cu|nccl|nv)|triton|cuda-)'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "torch==$TORCH" >"$scratch/torch"

compile() { # source, options ...
  uv pip compile "$@" --universal --python-version 3.11 --no-header --no-annotate --quiet --no-emit-package openvino-telemetry
}

lock() { # file, extras ...
  local file=$1 extras=()
  shift
  for extra in "$@"; do extras+=(--extra "$extra"); done
  cp "$file" "$scratch/$file" # uv prefers what its output file had
  compile pyproject.toml "${extras[@]}" --constraint "$scratch/torch" --output-file "$scratch/$file" "${options[@]}" >/dev/null
  grep -vE "$cuda" "$scratch/$file" >"$file"
}

lock requirements.lock azure data hf kubernetes serve text
lock requirements-dev.lock dev

# The image: torch with its CUDA packages apart from all else, so that another torch can be chosen.
cat docker/torch-cuda.lock docker/libraries.lock >"$scratch/image"
compile pyproject.toml --extra azure --extra data --extra hf --extra kubernetes --extra serve --extra text \
  --constraint requirements.lock --generate-hashes --output-file "$scratch/image" "${options[@]}" >/dev/null
awk -v torch="$cuda|^torch==" -v a=docker/torch-cuda.lock -v b=docker/libraries.lock \
  '/^[^ ]/ { file = $0 ~ torch ? a : b } { print >file }' "$scratch/image"
printf 'pip\nsetuptools\n' | compile - --constraint requirements.lock --generate-hashes >docker/build.lock
if [ -n "${TORCH_CPU_INDEX:-}" ]; then
  echo "torch==$TORCH+cpu" | compile - --no-deps --generate-hashes --index "$TORCH_CPU_INDEX" >docker/torch-cpu.lock
fi
