"""deploy/terraform, as far as it can be checked without its provider: format, and agreement with what stands elsewhere.

What the modules promise is tested by Terraform itself (deploy/terraform/tests), which needs the provider.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendered import ROOT, TERRAFORM, of_kind, overlay
from tests.deploy.test_kubernetes import TARGETS, target

CLUSTER = (TERRAFORM / "modules" / "cluster" / "main.tf").read_text(encoding="utf-8")
VARIABLES = (TERRAFORM / "variables.tf").read_text(encoding="utf-8")

ON_AZURE = [name for name in TARGETS if target(name).account is not None]

IDENTITIES = {"worker": "a", "conductor": "b"}

needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform here")


def default(variable: str, field: str) -> str:
    """The default of a field of a variable."""
    block = re.search(rf'^variable "{variable}" {{$(.*?)^}}$', VARIABLES, re.MULTILINE | re.DOTALL)
    assert block is not None
    found = re.search(rf"^\s*{field}\s*=\s*(?:optional\(\w+, )?\"?([\w.-]+)\"?\)?$", block[1], re.MULTILINE)
    assert found is not None, f"{variable}.{field}"
    return found[1]


def pools() -> dict[str, str]:
    """Which variable makes the nodes with a label ticketsmith.io/pool."""
    found = dict(re.findall(r'merge\(var\.(\w+), \{ label = "([\w-]+)"', CLUSTER))
    return {label: variable for variable, label in found.items()}


@needs_terraform
def test_format() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", "-no-color", str(TERRAFORM)], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run `terraform fmt -recursive deploy/terraform`:\n{done.stdout}"


@needs_terraform
def test_nonsense_is_refused(tmp_path: Path) -> None:
    """Of Terraform's own tests those that need no provider: variables alone, each refused by its own validation."""
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    runs = (TERRAFORM / "tests" / "refusals.tftest.hcl").read_text()
    without_provider = re.sub(r"^mock_provider .*?^}$", "", runs, count=1, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "refusals.tftest.hcl").write_text(without_provider)
    subprocess.run(["terraform", "init", "-no-color"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["terraform", "test", "-no-color"], cwd=tmp_path, capture_output=True, text=True)
    assert f"{runs.count('expect_failures')} passed, 0 failed" in done.stdout, done.stdout


@needs_terraform
def test_machines_of_the_system_pool_have_four_cores(tmp_path: Path) -> None:
    enough = ["D4ads_v5", "D16s_v5", "D3_v2", "DS12_v2", "DS14-4_v2", "E4s_v5", "E16-16s_v5", "F4s_v2", "NC4as_T4_v3"]
    too_few = [
        "D2ads_v5",
        "D2_v2",
        "D11",
        "D11_v2",
        "DS11_v2",
        "DS11_v2_Promo",
        "DS11-1_v2",
        "DS12-2_v2",
        "E4-2s_v5",
        "A5",
    ]
    condition = " && ".join(re.findall(r"condition *= (.*system_pool\.vm_size.*)", VARIABLES))
    sizes = ", ".join(f'"Standard_{size}"' for size in enough + too_few)
    asked = f'join(" ", [for size in [{sizes}] : size if {condition.replace("var.system_pool.vm_size", "size")}])\n'
    done = subprocess.run(["terraform", "console"], input=asked, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip().strip('"').split() == [f"Standard_{size}" for size in enough], done.stderr


@pytest.mark.parametrize("name", ON_AZURE)
def test_targets_on_azure_name_pools_that_terraform_makes(name: str) -> None:
    where = target(name)
    for pool in (where.train, where.cpu):
        variable = pools()[pool.node_selector["ticketsmith.io/pool"]]
        assert pool.machine == default(variable, "vm_size"), "a price of another machine than the one that is made"
        assert set(pool.node_selector) == {"ticketsmith.io/pool"}


@pytest.mark.parametrize("name", ON_AZURE)
def test_targets_on_azure_tolerate_the_taints_of_their_pool(name: str) -> None:
    where = target(name)
    tolerated = {(one.key, one.value) for one in where.train.tolerations}
    assert 'gpu_taint = "sku=gpu:NoSchedule"' in CLUSTER
    assert ("sku", "gpu") in tolerated
    assert (("kubernetes.azure.com/scalesetpriority", "spot") in tolerated) == where.train.spot
    assert 'cpu_taint = "ticketsmith.io/pool=cpu:NoSchedule"' in CLUSTER
    assert [(one.key, one.value) for one in where.cpu.tolerations] == [("ticketsmith.io/pool", "cpu")]


@pytest.mark.parametrize("name", ON_AZURE)
def test_targets_on_azure_pay_for_the_tail_that_the_autoscaler_leaves(name: str) -> None:
    where = target(name)
    minutes = int(default("idle_minutes", "default"))
    assert 'value       = "${var.idle_minutes + 2}m"' in (TERRAFORM / "outputs.tf").read_text()
    assert where.train.idle_tail == where.cpu.idle_tail == (minutes + 2) * 60


@pytest.mark.parametrize("name", ON_AZURE)
def test_targets_on_azure_are_in_the_region_and_container_of_the_defaults(name: str) -> None:
    where = target(name)
    assert where.region == default("location", "default")
    assert where.store == f"az://{default('container', 'default')}/runs"


def test_identities_are_for_the_accounts_of_the_namespace() -> None:
    main = (TERRAFORM / "main.tf").read_text()
    accounts = set(re.findall(r'"(ticketsmith-\w+)"', main.partition('module "identity"')[2].partition("\n}")[0]))
    assert accounts == set(of_kind(overlay("aks"), "ServiceAccount"))
    assert 'namespace = "ticketsmith"' in main


def test_queue_offers_no_more_than_the_pools_have() -> None:
    (group,) = of_kind(overlay("aks-kueue"), "ClusterQueue")["ticketsmith"]["spec"]["resourceGroups"]
    for flavor, variable in zip(group["flavors"], ("gpu_pool", "gpu_spot_pool"), strict=True):
        quotas = {one["name"]: one["nominalQuota"] for one in flavor["resources"]}
        assert quotas["nvidia.com/gpu"] == default(variable, "max_count")


def test_every_variable_says_what_it_is_and_refuses_nonsense() -> None:
    blocks = re.findall(r'^variable "(\w+)" {$(.*?)^}$', VARIABLES, re.MULTILINE | re.DOTALL)
    refused = (TERRAFORM / "tests" / "refusals.tftest.hcl").read_text()
    for name, block in blocks:
        assert "description" in block, name
        if "validation {" in block:
            assert f"expect_failures = [var.{name}]" in refused, f"no test that {name} refuses nonsense"
            for message in re.findall(r'error_message = "(.*)"', block):
                assert message.startswith(f"{name}: "), "messages name the variable, for users who set many"
        else:
            assert name in {"tags", "shared_access_keys", "private_endpoint"}, f"{name} is not validated"


def test_example_names_variables_that_exist() -> None:
    example = (TERRAFORM / "example.tfvars").read_text()
    for name in re.findall(r"^(?:# )?(\w+) *= ", example, re.MULTILINE):
        assert re.search(rf'^variable "{name}" {{$', VARIABLES, re.MULTILINE), name


def test_state_and_settings_of_an_installation_are_not_committed(tmp_path: Path) -> None:
    for name in ("terraform.tfstate", "terraform.tfstate.backup", "terraform.tfvars", ".terraform/x"):
        done = subprocess.run(["git", "check-ignore", "--quiet", f"deploy/terraform/{name}"], cwd=ROOT)
        assert done.returncode == 0, name


@needs_terraform
class TestOutput:
    """``deploy/output.sh``, which Makefile targets read outputs with, on a configuration that needs no provider."""

    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        (tmp_path / "terraform").mkdir()
        return Path(shutil.copy(ROOT / "deploy" / "output.sh", tmp_path / "output.sh"))

    def test_before_anything_is_made(self, script: Path) -> None:
        done = subprocess.run([script, "registry"], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "`make deploy-infra` first" in done.stderr

    def test_afterwards(self, script: Path) -> None:
        (script.parent / "terraform" / "main.tf").write_text('output "registry" {\n  value = "a.azurecr.io"\n}\n')
        subprocess.run(
            ["terraform", "apply", "-auto-approve", "-no-color"],
            cwd=script.parent / "terraform",
            check=True,
            capture_output=True,
        )
        done = subprocess.run([script, "registry"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "a.azurecr.io\n")
        missing = subprocess.run([script, "account"], capture_output=True, text=True)
        assert (missing.returncode, missing.stdout) == (1, "")


@needs_terraform
@pytest.mark.parametrize(("overlay_name", "queue"), [("aks", False), ("aks-kueue", True)])
def test_render_fills_in_the_identities_of_an_installation(tmp_path: Path, overlay_name: str, queue: bool) -> None:
    """`make deploy-render`, with Terraform's own template and a state that needs no provider."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    for part in ("Makefile", "ticketsmith/version.py", "deploy/deploy.mk", "deploy/output.sh"):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, tmp_path / part)
    shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "deploy" / "kubernetes")
    terraform = tmp_path / "deploy" / "terraform"
    terraform.mkdir()
    shutil.copy(TERRAFORM / "kustomization.yaml.tftpl", terraform)
    ids = {f"ticketsmith-{who}": f"{digit}{digit * 7}-1111-1111-1111-{digit * 12}" for who, digit in IDENTITIES.items()}
    pairs = ", ".join(f'"{name}" = "{client}"' for name, client in ids.items())
    call = 'templatefile("${path.module}/kustomization.yaml.tftpl", { client_ids = { ' + pairs + " } })"
    (terraform / "main.tf").write_text(f'output "kustomization" {{\n  value = {call}\n}}\n')
    subprocess.run(["terraform", "apply", "-auto-approve", "-no-color"], cwd=terraform, check=True, capture_output=True)

    made = subprocess.run(
        ["make", "deploy-render", f"OVERLAY={overlay_name}"], cwd=tmp_path, capture_output=True, text=True
    )

    assert made.returncode == 0, made.stderr
    objects = [one for one in yaml.safe_load_all((tmp_path / "build" / "deploy" / "all.yaml").read_text()) if one]
    accounts = of_kind(objects, "ServiceAccount")
    for name, client in ids.items():
        assert accounts[name]["metadata"]["annotations"]["azure.workload.identity/client-id"] == client
    assert ("ticketsmith" in of_kind(objects, "LocalQueue")) == queue
    assert len(objects) == len(overlay(overlay_name))


@pytest.mark.parametrize("builder", ["docker build", "podman build"])
def test_an_image_is_pushed_by_the_builder_that_made_it(tmp_path: Path, builder: str) -> None:
    """Signed in by a token on standard input: `az acr login` alone asks for a running Docker."""
    log = tmp_path / "log"
    programs = {
        "terraform": "echo -n me.azurecr.io",
        "az": f'echo "az $*" >> {log}; case "$*" in *expose-token*) echo secret;; *) echo sha256:1;; esac',
        builder.split()[
            0
        ]: f'echo "builder $*" >> {log}; case "$1" in login) read word; echo "read $word" >> {log};; esac',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["make", "--silent", "deploy-image", f"BUILDER={builder}", "VERSION=1.0", "COMMIT=abc"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "sha256:1\n"), done.stderr
    steps = log.read_text().splitlines()
    assert steps[0].startswith("builder build ")
    assert set(steps[1:4]) == {
        "az acr login --name me --expose-token --query accessToken --output tsv",
        "builder login me.azurecr.io --username 00000000-0000-0000-0000-000000000000 --password-stdin",
        "read secret",
    }
    assert steps[4] == "builder push me.azurecr.io/ticketsmith:1.0"


def test_makefile_shows_every_step() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for step in ("plan", "infra", "credentials", "image", "render", "kubernetes", "cost", "stop", "start", "destroy"):
        assert re.search(rf"^deploy-{step} +Azure: ", shown, re.MULTILINE), step
