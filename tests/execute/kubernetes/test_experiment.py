"""Whole experiments on a cluster, with real pods that train: from submit to report, and what hinders them.

They run on the fake cluster, and as they are on a disposable real one (see tests/cluster/fixtures.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from tests import warm
from tests.cluster.container import COMMON
from tests.cluster.fake import FakeCluster
from tests.execute.kubernetes.conftest import SMALL, Lab, make_lab
from tests.store.proxy import FaultyProxy
from ticketsmith.store import open_store

Make = Callable[..., Lab]


_LOCAL: dict[str, dict[str, bytes]] = {}


def local(lab: Lab) -> dict[str, str]:
    """The same recipe on this machine: SHA-256 of every file of every run. Made once for each recipe."""
    text = lab.recipe.read_text()
    if text not in _LOCAL:
        _LOCAL[text] = _made_here(lab)
    return lab.comparable(_LOCAL[text])


def _made_here(lab: Lab) -> dict[str, bytes]:
    store = lab.folder / "local"
    command = ["-m", "tests.plain", "prune", "--config", lab.recipe, "--store", store, "--no-benchmark"]
    ended = warm.run(command, env=COMMON | {"HOME": str(lab.folder)})
    assert ended.returncode in (0, 3, 6), ended.stderr
    folders = store.glob(f"{lab.experiment}/*/seed-*/level-*")
    return {path.relative_to(store).as_posix(): path.read_bytes() for folder in folders for path in folder.iterdir()}


def test_an_experiment_from_submit_to_report(azure_lab: Make) -> None:
    lab = azure_lab(("levels: 2", "levels: 1"), ("target_sparsity: 0.4", "target_sparsity: 0.3"))
    if isinstance(lab.cluster, FakeCluster):
        lab.cluster.images.clear()  # with the whole report
    shown = lab.run("submit")
    assert re.search(r"dense\s+│\s+2\s+│\s+4\s+│\s+0", shown)
    assert "budget: 5.00" in shown
    assert lab.wait_until_over() == "Complete"
    assert lab.sealed() == local(lab)  # the cluster changes no byte

    lab.set(("money: 5", "money: 7"))
    status = lab.run("status", "--experiment", "digits")
    assert "(budget: 5.00)" in status  # what was submitted, not what the file says now
    for variant in ("dense", "ticket", "random_reinit", "random_ticket", "report", "conductor"):
        assert re.search(rf"│ {variant}\s+│ ts-digits-\S+\s+│ complete", status), status
    assert "8 of 8 runs sealed" in status

    store = open_store(lab.store)
    assert b"What it cost" in (store.get("digits/report/report.md") or b"")
    costs = [file.path for file in store.files("digits/ledger") if file.path.endswith("/cost.json")]
    assert len(costs) == len(store.folders("digits"))
    assert json.loads(store.get(costs[0]) or b"")["machine"] == "my-node"
    assert "in all 0.0" in lab.run("cost", "--experiment", "digits")

    before = len(lab.cluster.pods())
    again = lab.run("submit", "--detach")
    assert "Every run is sealed" in again
    assert "will begin the Jobs" in again
    lab.wait_until_over()
    assert len(lab.cluster.pods()) <= before + 1  # a conductor that finds nothing to do: no second bill

    for name in {pod["metadata"]["labels"]["job-name"] for pod in lab.cluster.pods()}:
        lab.conductor().cluster.delete(name)
    lab.cluster.wait_for(lambda: not lab.cluster.pods())
    logs = lab.run("logs", "--experiment", "digits", "--variant", "ticket")
    assert "[ticket 0]" in logs
    assert "ticket level 1 seed 1: trained" in logs

    pulled = lab.run("pull", f"{lab.store}/digits", str(lab.folder / "pulled"))
    assert "digits" in pulled
    assert "0 damaged" in lab.run("verify", "--runs-prefix", str(lab.folder / "pulled"))

    secret = re.search(r"AccountKey=([^;]+)", os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    assert secret is not None
    texts = [store.get(file.path) or b"" for file in store.files("digits")]
    assert not any(secret[1].encode() in text for text in texts)
    assert secret[1] not in shown + status + logs + again + pulled
    if isinstance(lab.cluster, FakeCluster):
        bodies = json.dumps([str(r.body) for r in lab.cluster.audit if "/secrets" not in r.path])
        assert secret[1] not in bodies


def test_bad_input_is_told_where_the_user_looks_and_is_not_tried_again(azure_lab: Make) -> None:
    """The recipe's own model is here, but not in the image."""
    lab = azure_lab(
        *SMALL,
        ("model: {name: mlp, widths: [32, 16]}", "model: 'own_net:Net'"),
        ("target_sparsity: 0.4", "target_sparsity: 0.2"),
    )
    (lab.folder / "own_net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self, classes: int) -> None:\n"
        "        super().__init__()\n        self.output = torch.nn.Linear(64, classes)\n\n"
        "    def forward(self, x):\n        return self.output(x.flatten(1))\n"
    )
    lab.run("submit")
    assert lab.wait_until_over() == "Failed"
    assert len(lab.pods("dense")) == 1
    assert "bad input" in lab.run("status", "--experiment", "digits", check=False)
    assert "own_net" in lab.run("logs", "--experiment", "digits", "--variant", "dense")


def test_a_store_that_is_away_at_the_end_of_a_run_loses_nothing(
    tmp_path: Path, fake_cluster: FakeCluster, container: str, proxy: FaultyProxy
) -> None:
    secret = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    lab = make_lab(tmp_path, fake_cluster, f"az://{container}/runs", secret, *SMALL)
    lab.run("submit")
    fake_cluster.wait_for(lambda: proxy.count("PUT", "dense/seed-0") > 0, 120)  # the run is being published
    proxy.refuse(4)
    assert lab.wait_until_over() == "Complete"
    assert len(lab.pods("dense")) == 1
    assert lab.sealed() == local(lab)


def test_a_pod_that_no_node_has_room_for_is_explained(azure_lab: Make) -> None:
    lab = azure_lab(*SMALL)
    lab.set(("train: {machine: my-node=0.1, ", "train: {machine: my-gpu=2.0, gpus: 1, node_selector: {pool: gpu}, "))
    lab.run("submit")
    lab.cluster.wait_for(lambda: lab.pods("dense", "Pending"), 60)

    def told() -> str:
        status = lab.run("status", "--experiment", "digits")
        return status if "no node has room" in status else ""

    assert "nodes are available" in " ".join(str(lab.cluster.wait_for(told, 60)).split())
    assert "2 Jobs stopped" in lab.run("cancel", "--experiment", "digits")
    lab.cluster.wait_for(lambda: not lab.pods("dense"))
    assert "cancelled" in lab.run("status", "--experiment", "digits")
