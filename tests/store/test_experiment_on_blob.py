"""Whole experiments on Azure Blob, with real processes: the bytes of a local one, whatever happens on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.conftest import DIGITS
from tests.execute.test_local_executor import start
from tests.store.azurite import KEY
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import StoreUnreachableError
from ticketsmith.store import open_store
from ticketsmith.store.contract import RunFolder

SEALED_RUN = "seed-*/level-*"


def finish(recipe: Path, store: str, *more: str) -> str:
    process = start(recipe, store, *more)
    out, err = process.communicate(timeout=400)
    assert process.returncode in (0, 3, 6), out + err
    assert "Traceback" not in err
    assert KEY not in out + err
    return out + err


def sealed_folder(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for run in root.glob(f"*/*/{SEALED_RUN}")
        for path in run.iterdir()
    }


def sealed_blobs(client: ContainerClient) -> dict[str, str]:
    names = [name for name in client.list_blob_names() if RunFolder.parse("/".join(name.split("/")[:4]))]
    return {name: hashlib.sha256(client.download_blob(name).readall()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(DIGITS.replace("levels: 2", "levels: 1").replace("target_sparsity: 0.4", "target_sparsity: 0.3"))
    return path


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, str]:
    """An undisturbed experiment in a folder."""
    root = recipe.parent / "runs"
    finish(recipe, str(root), "--workers", "1")
    return sealed_folder(root)


def test_a_killed_and_disturbed_experiment_ends_with_the_bytes_of_a_local_one(
    recipe: Path, expected: dict[str, str], proxy: FaultyProxy, client: ContainerClient
) -> None:
    store, chance = f"az://{client.container_name}", random.Random(5)
    for _ in range(2):
        for fault in (proxy.cut_request, proxy.cut_response, proxy.lose_response):
            fault(path="seed-")
        proxy.answer(503, times=2)
        process = start(recipe, store, "--workers", "2", "--checkpoint-every", "0.05")
        proxy.forget()
        until, deadline = chance.randrange(10, 60), time.monotonic() + 120
        while proxy.count("PUT") < until and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # a moment counted in writes strikes work in progress, on a slow machine too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        assert "Traceback" not in err
        assert KEY not in err
    finish(recipe, store, "--workers", "2")
    assert sealed_blobs(client) == expected
    assert [name for name in client.list_blob_names(name_starts_with=".work/") if "claims" not in name] == []
    _no_key_anywhere(client)


def test_a_server_that_is_away_in_the_middle_stops_nothing(
    recipe: Path, expected: dict[str, str], proxy: FaultyProxy, client: ContainerClient
) -> None:
    process = start(recipe, f"az://{client.container_name}", "--workers", "2", "--checkpoint-every", "0.05")
    deadline = time.monotonic() + 120
    while proxy.count("PUT", "manifest.json") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    proxy.down()
    for connection in range(2):
        time.sleep(2)
        proxy.refuse(seconds=1) if connection else None
    proxy.up()
    out, err = process.communicate(timeout=400)
    assert process.returncode in (0, 3, 6), out + err
    assert "10 trained, 0 cached" in err
    assert sealed_blobs(client) == expected


def test_two_machines_at_once_share_the_work(
    recipe: Path, expected: dict[str, str], container: str, client: ContainerClient
) -> None:
    both = [start(recipe, f"az://{container}", "--workers", "1") for _ in range(2)]
    outputs = [process.communicate(timeout=400) for process in both]
    assert [process.returncode in (0, 3, 6) for process in both] == [True, True], outputs
    assert sealed_blobs(client) == expected
    trained = [int(err.split(" trained, ")[0].splitlines()[-1]) for _, err in outputs]
    assert sum(trained) == len({name.rsplit("/", 1)[0] for name in expected})


def _no_key_anywhere(client: ContainerClient) -> None:
    for name in client.list_blob_names():
        content = client.download_blob(name).readall()
        assert KEY.encode() not in content, name
        assert b"AccountKey" not in content, name


def test_a_run_is_sealed_though_no_checkpoint_can_be_saved(
    recipe: Path, proxy: FaultyProxy, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from ticketsmith.api import load, prepare
    from ticketsmith.training.job import Job
    from ticketsmith.training.produce import Hooks, produce

    monkeypatch.setattr("ticketsmith.store.blob.store.BRIEF", 0.1)
    prepared = prepare(load(recipe, ["training.duration=8it", "training.evaluate_every=4it"]))
    store = open_store(f"az://{container}")
    dense, other = [node for node in prepared.plan.nodes if node.variant == "dense"]

    def job(node: object) -> Job:
        loaded = prepared.recipe
        return Job(node.spec, node.folder("digits"), loaded.task_component, loaded.base, loaded.sha256)  # type: ignore[attr-defined]

    store.put("digits/plan.json", prepared.plan.to_bytes())
    proxy.answer(503, times=10**6, method="PUT", path=r"\.work/.*checkpoint")
    hooks = Hooks(checkpoint_every=0.0)
    assert produce(job(dense), store, torch.device("cpu"), hooks) == "trained"
    assert proxy.count("PUT", r"\.work/.*checkpoint")
    assert store.folders() == [dense.folder("digits")]
    with pytest.raises(StoreUnreachableError):  # asked to stop, it must tell that the work since the last one is lost
        produce(job(other), store, torch.device("cpu"), Hooks(stop=lambda: True))


def test_an_outage_at_the_end_of_a_run_ends_in_a_sealed_run(
    recipe: Path, expected: dict[str, str], proxy: FaultyProxy, client: ContainerClient
) -> None:
    """The connection goes when the first run asks to be published, and stays away for a while."""
    held = proxy.hold(method="HEAD", path="manifest.json")
    process = start(recipe, f"az://{client.container_name}", "--workers", "1", afresh=True)
    assert held.come.wait(120)
    commands = [place.read_bytes() for place in Path("/proc").glob("[0-9]*/cmdline") if os.access(place, os.R_OK)]
    assert any(b"tests.plain" in command for command in commands)
    assert not any(KEY.encode() in command for command in commands)
    proxy.refuse(seconds=8)
    threading.Timer(1.0, held.release).start()
    out, err = process.communicate(timeout=400)
    assert process.returncode in (0, 3, 6), out + err
    assert "trying again for up to" in err
    assert "10 trained, 0 cached" in err
    assert sealed_blobs(client) == expected
    assert json.loads(client.download_blob("digits/plan.json").readall())["experiment"] == "digits"
