"""What a user sees before a cluster is touched, and when something is wrong with what was given."""

from __future__ import annotations

import os
import re
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

from tests.conftest import DIGITS, ROOT

RECIPE = DIGITS.replace("levels: 2", "levels: 1").replace("target_sparsity: 0.4", "target_sparsity: 0.3")


def door(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """``scripts/submit_job.py`` as a user calls it, in this process: status, output, errors."""
    (folder / "recipe.yaml").write_text(RECIPE)
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, open(os.devnull) as nothing:
        for name in [name for name in os.environ if name.startswith(("AZURE_", "KUBE"))]:
            patch.delenv(name)
        for name, value in {"HOME": str(folder), **environment}.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["submit_job.py", "--config", "recipe.yaml", *arguments])
        patch.setattr(sys, "stdin", nothing)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                runpy.run_path(str(ROOT / "scripts/submit_job.py"), run_name="__main__")
            except SystemExit as end:
                code = int(end.code or 0)
    assert "Traceback" not in err.getvalue() + out.getvalue()
    return code, out.getvalue(), err.getvalue()


TARGET = str(ROOT / "configs/targets/cpu.yaml")


def test_a_dry_run_needs_no_cluster_and_prints_what_kubectl_takes_and_the_ceiling(tmp_path: Path) -> None:
    code, out, err = door(tmp_path, "--target", TARGET, "--dry-run")
    assert code == 0, err
    jobs = [document for document in yaml.safe_load_all(out) if document]
    assert len(jobs) == 6
    for job in jobs:
        validate(job, "1.36", strict=True)
    parts = [float(price) for price in re.findall(r"= ([\d.]+) USD,", out)]
    whole = re.search(r"in all at most ([\d.]+) USD", out)
    assert whole is not None
    assert sum(parts) == pytest.approx(float(whole[1]), abs=1e-3)
    assert "dense: 2 pods x (3660 s + 600 s idle) x 0.1000 USD/h = 0.2367 USD" in out


def test_the_shipped_targets_are_complete_but_for_what_is_yours(tmp_path: Path) -> None:
    for name in ("aks", "aks-spot"):
        target = str(ROOT / f"configs/targets/{name}.yaml")
        code, out, err = door(tmp_path, "--target", target, "--dry-run")
        assert code == 0, err
        assert re.findall(r"warning: .*: (\w+) is still '<.*put your own value", err) == ["image", "account"]
        assert "image: <registry>.azurecr.io" in out, "what is to be filled in can be seen in its place"
        code, _, err = door(tmp_path, "--target", target)
        assert code == 2
        assert err.count("put your own value in the place of the <...>") == 2
        mine = ("--set-target", "image=me.azurecr.io/ticketsmith:1", "--set-target", "account=mystorage")
        code, out, err = door(tmp_path, "--target", target, "--dry-run", *mine)
        assert code == 0, err
        assert "warning" not in err
        assert "GPU hours at most" in out
        for job in filter(None, yaml.safe_load_all(out)):
            validate(job, "1.36", strict=True)


def test_a_pod_of_several_gpus_makes_each_run_by_as_many_ranks(tmp_path: Path) -> None:
    five = ("--target", TARGET, "--set-target", "train.gpus=5", "--dry-run")
    code, out, err = door(tmp_path, *five)
    assert code == 0, err
    assert "each run is made by 5 ranks" in err
    pods = [job["spec"]["template"]["spec"]["containers"][0] for job in yaml.safe_load_all(out) if job]
    assert [pod["resources"]["limits"].get("nvidia.com/gpu") for pod in pods if pod["args"][0] == "work"] == ["5"] * 4
    names = {job["metadata"]["name"] for job in yaml.safe_load_all(out) if job}
    code, out, err = door(tmp_path, *five, "--set", "training.ranks=1")
    assert (code, "ranks" in err) == (0, False)
    assert not names & {
        job["metadata"]["name"] for job in yaml.safe_load_all(out) if job and job["spec"].get("completions")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", TARGET, "--set-target", "train.gpus=2", "--set", "training.ranks=5"), "Set train.gpus to 5"),
        (("--target", TARGET, "--set-target", "train.gpus=4"), "parts do not make a `batch_size` of 50"),
        (("--target", "none.yaml"), "none.yaml: no such file"),
        (("--target", TARGET, "--set-target", "train.machine=Standard_X"), "no price is known of the machine"),
        (("--target", TARGET, "--set-target", "limits.dedline=1h"), "Did you mean 'deadline'?"),
        (("--target", TARGET, "--set", "training.lrr=1"), "Did you mean 'lr'?"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = door(tmp_path, *arguments, "--dry-run")
    assert code == 2
    assert message in err


def test_no_cluster_no_store_and_nobody_to_ask(tmp_path: Path) -> None:
    code, _, err = door(tmp_path, "--target", TARGET)
    assert code != 0
    assert "AZURE_STORAGE_CONNECTION_STRING" in err
    folder = ("--set-target", f"store={tmp_path / 'runs'}", "--set-target", "connection_secret=null")
    code, _, err = door(tmp_path, "--target", TARGET, *folder)
    assert code == 5
    assert "no cluster to talk to" in err
    assert "az aks get-credentials" in err
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    code, _, err = door(tmp_path, "--target", TARGET, *folder, "--set-target", "context=y", KUBECONFIG=str(kubeconfig))
    assert code == 5
    assert "no cluster to talk to" in err
