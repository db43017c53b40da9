"""A place to run experiments on a cluster: real or fake, with a real store and real commands."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import yaml
from kubernetes.utils import create_from_dict

from tests import warm
from tests.cluster.container import COMMON
from tests.cluster.fake import FakeCluster
from tests.cluster.fixtures import Cluster, client_of, cluster, fake_cluster
from tests.cluster.kubelet import Image
from tests.cluster.resources import Object
from tests.conftest import DIGITS
from tests.deploy.rendered import overlay
from tests.execute.kubernetes import light_worker
from tests.store.azurite import PODS_CONNECTION, Azurite
from ticketsmith.config.target import Target, load_target
from ticketsmith.execute.kubernetes.cluster import connect
from ticketsmith.execute.kubernetes.conductor import Conductor
from ticketsmith.execute.kubernetes.records import Records
from ticketsmith.plan import Plan
from ticketsmith.store import open_store
from ticketsmith.store.contract import MANIFEST, checkpoint_path
from ticketsmith.training.tensors import from_bytes

__all__ = ["cluster", "fake_cluster"]

ROOT = Path(__file__).resolve().parents[3]
TARGET = """
image: {image}
namespace: {namespace}
store: {store}
train: {{machine: my-node=0.1, cpu: "1", memory: 2Gi, parallelism: 2, idle_tail: 60s}}
cpu: {{machine: my-node=0.1, cpu: 500m, memory: 1Gi, idle_tail: 60s}}
limits: {{deadline: 10m, experiment: 20m, grace: 20s, retries: 2, checkpoint_every: 1s, poll: 1s, stuck: 3s}}
budget: {{money: 5}}
benchmark: false
"""
SMALL = (
    ("replicates: 2", "replicates: 1\nvariants: {random_reinit: false, random_ticket: false}"),
    ("levels: 2", "levels: 1"),
)
"""Of the digits recipe: one dense run and one ticket."""


@dataclass
class Lab:
    """One experiment on a cluster."""

    folder: Path
    cluster: Cluster
    store: str
    target: Path
    recipe: Path
    notes: list[str] = field(default_factory=list)

    def run(self, verb: str, *more: str, check: bool = True, seconds: float = 240) -> str:
        """A command, as a user gives it; what it printed. Raises AssertionError when it fails."""
        code, text = self.ends(verb, *more, seconds=seconds)
        assert code == 0 or not check, f"{verb} ended with {code}\n{text}"
        return text

    def ends(self, verb: str, *more: str, seconds: float = 240) -> tuple[int, str]:
        """Exit status and output of a command."""
        process = self.start(verb, *more)
        try:
            text, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        assert "Traceback" not in text, text
        return process.returncode, text

    def start(self, verb: str, *more: str) -> subprocess.Popen[str]:
        """A command that has only begun; what it prints and warns of comes together."""
        options = ["--target", str(self.target)] if verb not in ("pull", "ls", "report", "verify") else []
        if verb == "submit":
            options += ["--config", str(self.recipe), "--yes"]
        elif verb == "resume":
            options.append("--yes")
        signs_in = {name: value for name, value in os.environ.items() if name.startswith("AZURE_")}
        terminal = {"KUBECONFIG": str(self.cluster.kubeconfig), "COLUMNS": "200", "HOME": str(self.folder)}
        environment = COMMON | signs_in | terminal
        return warm.start(
            ["-m", "ticketsmith", verb, *options, *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=self.folder,
        )

    def set(self, *replacements: tuple[str, str], recipe: bool = False) -> None:
        """Changes the target's text, or the recipe's."""
        place = self.recipe if recipe else self.target
        text = place.read_text()
        for old, new in replacements:
            assert old in text, f"{old!r} is not in {place.name}"
            text = text.replace(old, new)
        place.write_text(text)

    def conductor(self) -> Conductor:
        """One in this process, to be stepped by the test."""
        target = load_target(self.target)
        os.environ["KUBECONFIG"] = str(self.cluster.kubeconfig)
        return Conductor(self.records, connect(None, target.namespace, patience=20), self.notes.append)

    @property
    def records(self) -> Records:
        return Records(open_store(self.store), self.experiment)

    @property
    def experiment(self) -> str:
        return str(yaml.safe_load(self.recipe.read_text())["experiment"])

    @property
    def submitted(self) -> Target:
        return self.records.submission().target

    def pods(self, variant: str, phase: str = "") -> list[Object]:
        """Pods of a variant, oldest first."""
        wanted = variant.replace("_", "-")
        return [
            pod
            for pod in self.cluster.pods()
            if pod["metadata"]["labels"].get("ticketsmith.io/variant") == wanted
            and (not phase or pod["status"].get("phase") == phase)
        ]

    @property
    def plan(self) -> Plan:
        """What was submitted."""
        plan = self.records.plan(self.records.submission())
        assert plan is not None
        return plan

    def step_of(self, key: str) -> int:
        """Which step the checkpoint of a run has reached, 0 without one."""
        content = open_store(self.store).get(checkpoint_path(key))
        return int(from_bytes(content[32:], "checkpoint")[1]["step"]) if content else 0

    def pod_at_work(self, variant: str) -> str:
        """Waits for a pod that trains and has saved a checkpoint; its name."""
        store = open_store(self.store)

        keys = [node.key for node in self.plan.nodes if node.variant == variant]

        def look() -> str:
            running = self.pods(variant, "Running")
            if running and any(store.get(checkpoint_path(key)) for key in keys):
                return str(running[-1]["metadata"]["name"])
            return ""

        return str(self.cluster.wait_for(look, 180, f"a pod of {variant} that has saved a checkpoint"))

    def wait_until_over(self, seconds: float = 240) -> str:
        """Waits for the conductor's end; its Job's condition, ``Complete`` or ``Failed``."""

        def look() -> str:
            conductors = {
                pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") for pod in self.pods("conductor")
            }
            ends = [
                condition["type"]
                for name in conductors
                for condition in self.cluster.job(str(name)).get("status", {}).get("conditions") or []
                if condition["status"] == "True" and condition["type"] in ("Complete", "Failed")
            ]
            return ends[-1] if conductors and len(ends) == len(conductors) else ""

        return str(self.cluster.wait_for(look, seconds, "the end of the experiment"))

    def sealed(self) -> dict[str, str]:
        """SHA-256 of every file of every sealed run that is to be the same as on this machine."""
        store = open_store(self.store)
        files = [file.path for folder in store.folders(self.experiment) for file in store.files(str(folder))]
        return self.comparable({path: store.get(path) or b"" for path in files})

    def comparable(self, files: dict[str, bytes]) -> dict[str, str]:
        """SHA-256 by path. Pods of the fake run the clone that the tests run, so that every byte must be equal.

        An image has versions of its own: ``environment.json`` tells them, and ``manifest.json`` has that file's hash.
        """
        if not self.cluster.is_fake:
            files = {path: _without_environment(path, content) for path, content in files.items()}
        return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def _without_environment(path: str, content: bytes) -> bytes:
    name = path.rpartition("/")[2]
    if name == MANIFEST:
        plain = json.loads(content)
        del plain["files"]["environment.json"]
        return json.dumps(plain, sort_keys=True).encode()
    return b"" if name == "environment.json" else content


@cache
def ready_for_pods() -> None:
    """What pods and commands are forked from is there before the first of them, whose start has deadlines."""
    warm.run(["-m", "ticketsmith", "--version"], env={**COMMON, "HOME": "/"})


def apply_deployment(cluster: Cluster) -> None:
    """The shipped accounts and roles of ``deploy/kubernetes``, in the test's namespace."""
    wanted = [one for one in overlay("local") if one["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    text = json.dumps(wanted).replace('"namespace": "ticketsmith"', f'"namespace": "{cluster.namespace}"')
    for one in json.loads(text):
        create_from_dict(client_of(cluster), one)


def make_lab(folder: Path, cluster: Cluster, store: str, secret: str | None, *changes: tuple[str, str]) -> Lab:
    """A lab with the digits recipe, changed."""
    text = DIGITS
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    recipe, target = folder / "digits.yaml", folder / "target.yaml"
    ready_for_pods()
    recipe.write_text(text)
    words = TARGET.format(image=cluster.image, namespace=cluster.namespace, store=store)
    if secret is not None:
        cluster.add_secret("ticketsmith-store", **{"connection-string": secret})
        words += "connection_secret: {name: ticketsmith-store}\n"
    target.write_text(words)
    apply_deployment(cluster)
    return Lab(folder, cluster, store, target, recipe)


@pytest.fixture
def azure_lab(tmp_path: Path, cluster: Cluster, azurite: Azurite, container: str) -> Callable[..., Lab]:
    """Makes a lab with its store in Azurite. On a real cluster pods must be told how to reach it.

    On the fake one its report is plain: what reports hold is no question of clusters, and to draw one takes long.
    """
    if isinstance(cluster, FakeCluster):
        cluster.images[cluster.image] = Image((sys.executable, "-m", "tests.plain"))
    secret = azurite.connection_string if cluster.is_fake else azurite.pods_connection_string
    if secret is None:
        pytest.skip(f"{PODS_CONNECTION} does not say how pods reach the store")
    return lambda *changes: make_lab(tmp_path, cluster, f"az://{container}/runs", secret, *changes)


@pytest.fixture
def light_lab(tmp_path: Path, fake_cluster: FakeCluster) -> Iterator[Callable[..., Lab]]:
    """Makes a lab on the fake whose pods seal runs without training them; the store is a folder."""

    def make(*changes: tuple[str, str], **variables: str) -> Lab:
        entry = (sys.executable, "-m", light_worker.__name__)
        fake_cluster.images[fake_cluster.image] = Image(entry, env={"PYTHONPATH": str(ROOT), **variables})
        return make_lab(tmp_path, fake_cluster, str(tmp_path / "runs"), None, *changes)

    before = os.environ.get("KUBECONFIG")
    yield make
    os.environ.pop("KUBECONFIG", None)
    if before is not None:
        os.environ["KUBECONFIG"] = before
