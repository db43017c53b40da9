#!/usr/bin/env bash
# Installs Azurite (an emulator of Azure Blob Storage) below tests/tools, in the versions of its lock file.
# Without npm nothing is installed and the tests that need it are skipped.
set -euo pipefail
cd "$(dirname "$0")/../tests/tools"

if ! command -v npm >/dev/null; then
  echo "no npm here: tests that need Azurite will be skipped (in CI they fail)" >&2
  exit 0
fi
if [ node_modules/.package-lock.json -nt package-lock.json ]; then
  exit 0 # installed since the lock file was last changed
fi
if npm ci --no-audit --no-fund --ignore-scripts --loglevel=error; then
  touch node_modules/.package-lock.json
else
  echo "npm could not install Azurite: tests that need it will be skipped (in CI they fail)" >&2
fi
