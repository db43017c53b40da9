#!/usr/bin/env bash
# Formats, schemas and policies of deploy/, as far as they can be checked without a network and without a cluster.
# `make lint-deploy` runs it. With a network, `terraform test` checks what the modules promise (the last lines tell how).
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
BIN=${BIN:-.venv/bin}
KUBERNETES=${KUBERNETES:-1.36}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/ticketsmith
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

step() { printf '\n== %s\n' "$*"; }
need() { command -v "$1" >/dev/null || { echo "$1 is not installed: $2" >&2; exit 1; }; }

# environment NAME [PIP OPTIONS]: a cached environment of deploy/requirements-NAME.txt; prints its bin folder.
environment() {
  local wanted=deploy/requirements-$1.txt
  local place="$CACHE/$1-$(cksum <"$wanted" | cut -d' ' -f1)"
  if [ ! -e "$place/.installed" ]; then
    "$PYTHON" -m venv --clear "$place" >&2
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}" -r "$wanted" >&2
    touch "$place/.installed"
  fi
  echo "$place/bin"
}

need terraform "https://developer.hashicorp.com/terraform/install"
need kubectl "https://kubernetes.io/docs/tasks/tools/"

step "Terraform: format"
terraform fmt -check -diff -recursive deploy/terraform

step "Terraform: arguments against the provider's schema"
"$(environment schema --no-deps)/python" deploy/check_schema.py

step "Kubernetes: every overlay builds, and is valid for Kubernetes $KUBERNETES"
for overlay in deploy/kubernetes/overlays/*/; do
  name=$(basename "$overlay")
  kubectl kustomize "$overlay" >"$rendered/$name.yaml"
  # Kueue's own kinds have no schema here: they are reported as unknown, and pass.
  "$BIN/kubernetes-validate" --strict --kubernetes-version "$KUBERNETES" "$rendered/$name.yaml" >"$rendered/$name.log" 2>&1 ||
    { cat "$rendered/$name.log" >&2; exit 1; }
  echo "$name: $(grep -c '^kind:' "$rendered/$name.yaml") objects"
done
rm "$rendered"/*.log

step "Policies: checkov (each exception is a comment with its reason, where it is made)"
checkov() { "$tools/checkov" --skip-download --compact --quiet "$@"; }
tools=$(environment checkov)
checkov --framework terraform --directory deploy/terraform
checkov --framework kubernetes --directory "$rendered"
# CKV_DOCKER_2: Kubernetes ignores HEALTHCHECK, and Jobs end by themselves.
# CKV_DOCKER_7: the base is a build argument, whose default is pinned by digest.
checkov --framework dockerfile --file Dockerfile --skip-check CKV_DOCKER_2,CKV_DOCKER_7

step "Not checked here, for want of a network: terraform validate and terraform test. Where there is one:"
echo "  terraform -chdir=deploy/terraform init -backend=false"
echo "  terraform -chdir=deploy/terraform validate"
echo "  terraform -chdir=deploy/terraform test"
