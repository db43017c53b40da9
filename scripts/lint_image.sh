#!/usr/bin/env bash
# Lints the Dockerfile with hadolint, which is one of the development requirements.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/${VENV:-.venv}/bin:$PATH"
hadolint --failure-threshold info Dockerfile
