#!/usr/bin/env bash
# Tests that need MLflow's server, Weights & Biases and Trackio, in an environment of their own beside the usual one: MLflow
# alone is 400 MB, and wants another python-dateutil than the client of Kubernetes does.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${VENV:-.venv}
own=$base-trackers
if [ ! -e "$own/.installed" ]; then
  "$base/bin/python" -m venv "$own"
  site=$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$base/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/base.pth"
  "$own/bin/python" -m pip install --quiet 'mlflow>=3.5,<4' 'wandb>=0.31,<1' 'trackio>=0.43,<1'
  touch "$own/.installed"
fi
TICKETSMITH_MLFLOW="$PWD/$own/bin/mlflow" PYTHONPATH="$PWD" exec "$own/bin/python" -m pytest tests/track "$@"
