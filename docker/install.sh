#!/bin/sh
# Installs what pip's arguments name into a folder that the image lays over /opt/venv.
#   install.sh <folder> <pip arguments>
set -eu
layer=$1
shift
/opt/tools/bin/pip --python /opt/venv/bin/python install --no-deps --no-compile --prefix "$layer" "$@"

# What nothing reads at run time: tests, and what only a compiler wants.
for site in "$layer"/lib/python3*/site-packages; do
    find "$site" -type d -name tests -prune -exec rm -rf {} +
    rm -rf "$site"/*/include "$site"/torch/share/cmake
    rm -rf "$site/kubernetes/aio" # its client for asyncio, a copy of all of it
    find "$site/torch/bin" ! -type d ! -name torch_shm_manager -delete 2>/dev/null || true
    # Bytecode, since a read-only root file system cannot keep any: every process starts seconds sooner.
    # Not of transformers' models, a third of all: a process reads the few files of one. Nor of torch's tests of itself.
    # A package may hold a file that is no Python of this version; pip takes no offence either.
    /opt/venv/bin/python -m compileall -q -j 0 -x '/(transformers/models/(?!auto/)[^/]+/|torch/testing/_internal/)' \
        -s "$layer" -p /opt/venv "$site" || true
done
