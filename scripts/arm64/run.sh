#!/usr/bin/env bash
# The kernels for ARM (NEON) on any Debian machine, as root: compiled across, and run in an emulated arm64 Python with NumPy
# alone. The cases are those of test_operations.py and test_winograd.py in tests/runtime, with the answers that PyTorch gave here,
# and trainings of tests/training/native/test_engine.py, with the weights that the kernels of this machine gave.
#   scripts/arm64/run.sh [folder]
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-$(mktemp -d)}
python=${PYTHON:-.venv/bin/python}
arm=$work/arm64
mkdir -p "$work/cases" "$work/objects" "$work/package"

apt-get install -y -qq --no-install-recommends qemu-user g++-aarch64-linux-gnu mmdebstrap >/dev/null
[ -d "$arm" ] || mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,python3-numpy,libstdc++6 bookworm "$arm"

cp -r ticketsmith "$work/package"
rm -f "$work"/package/ticketsmith/native/*.so
sources=ticketsmith/native/src
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))') # the limited API is the same everywhere
"$python" ticketsmith/native/abi.py "$work/headers"
for source in "$sources"/*/*.cpp; do
  aarch64-linux-gnu-g++ -std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -Wall -Wextra -Wno-maybe-uninitialized \
    -I"$sources" -I"$work/headers" -I"$headers" -c "$source" -o "$work/objects/$(basename "$source" .cpp).o"
done
aarch64-linux-gnu-g++ -shared -pthread "$work"/objects/*.o -o "$work/package/ticketsmith/native/_library.abi3.so"

CASES=$work/cases PYTHONPATH=scripts/arm64:. "$python" -m pytest -q -p record -p no:cacheprovider tests/runtime/test_operations.py tests/runtime/test_winograd.py \
  tests/training/native/test_engine.py::test_twenty_steps_end_where_those_of_pytorch_end

libraries=/usr/lib/aarch64-linux-gnu
CASES=$work/cases qemu-aarch64 -L "$arm" \
  -E PYTHONHOME="$arm/usr" -E PYTHONPATH="$work/package:$arm/usr/lib/python3/dist-packages" \
  -E LD_LIBRARY_PATH="$libraries:$libraries/blas:$libraries/lapack" "$arm/usr/bin/python3.11" scripts/arm64/replay.py
