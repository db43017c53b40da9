#!/usr/bin/env bash
# Prints outputs of deploy/terraform, each on a line: deploy/output.sh registry account
# `terraform output` alone ends well, and prints a warning to standard output, when nothing was made yet.
set -euo pipefail
cd "$(dirname "$0")/terraform"

for name in "$@"; do
  if ! value=$(terraform output -no-color -raw "$name" 2>/dev/null) || [ -z "$value" ] || [[ $value == *Warning:* ]]; then
    echo "deploy/terraform has no output $name yet: \`make deploy-infra\` first" >&2
    exit 1
  fi
  printf '%s\n' "$value"
done
