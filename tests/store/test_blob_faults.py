"""A store on Azure Blob when the network and the server fail in every way: nothing is lost, nothing is done twice needlessly."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.store.azurite import CONNECTION_STRING, KEY, Azurite
from tests.store.places import FOLDER, files
from tests.store.places import KEY as RUN
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import StoreError, StoreUnreachableError
from ticketsmith.store import open_store
from ticketsmith.store.address import BlobAddress
from ticketsmith.store.blob.content import RANGE
from ticketsmith.store.blob.sign_in import sign_in
from ticketsmith.store.blob.store import BlobStore
from ticketsmith.store.contract import MANIFEST, SealedRun

BLOCK = "comp=block&"
LIST = "comp=blocklist"
OTHER = "ff" * 32
LARGE = os.urandom(5 * RANGE + 1000)  # six blocks


def blob_store(container: str, **options: float) -> BlobStore:
    return BlobStore(BlobAddress(container, "p"), sign_in(), **options)  # type: ignore[arg-type]


@pytest.fixture
def direct(azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    """The same store past the proxy, as another machine has it."""
    with monkeypatch.context() as patch:
        patch.setenv(CONNECTION_STRING, azurite.connection_string)
        return blob_store(container)


@pytest.mark.parametrize("lost", [MANIFEST, "model.safetensors", LIST], ids=["manifest", "file", "blocks"])
def test_a_lost_answer_is_no_other_writer(proxy: FaultyProxy, container: str, lost: str) -> None:
    """The server did it, and we never heard: what we find there is ours."""
    store = blob_store(container)
    proxy.lose_response(method="PUT", path=lost)
    assert store.publish(FOLDER, files(large=LARGE))
    SealedRun(store, FOLDER).verify()
    assert not store.publish(FOLDER, files(large=LARGE))


def test_a_lost_answer_to_a_loose_file_and_to_a_claim(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    proxy.lose_response(method="PUT", path="recipe")
    store.put("exp/recipe.yaml", b"one")
    assert store.get("exp/recipe.yaml") == b"one"
    proxy.lose_response(method="PUT", path="comp=lease", times=2)
    with store.claim(RUN) as granted:
        assert granted
    proxy.lose_response(method="DELETE", path="recipe")
    store.delete("exp/recipe.yaml")
    assert store.get("exp/recipe.yaml") is None


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(proxy: FaultyProxy, container: str, status: int) -> None:
    store = blob_store(container)
    proxy.answer(status, times=4)
    assert store.publish(FOLDER, files())
    proxy.answer(status, times=2, method="GET")
    SealedRun(store, FOLDER).verify()


def test_no_sooner_than_the_server_asks(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    proxy.answer(429, retry_after=2)
    began = time.monotonic()
    store.put("exp/plan.json", b"{}")
    assert time.monotonic() - began >= 2
    assert proxy.count("PUT", "plan.json") == 2


def test_an_outage_of_some_seconds_at_the_end_of_a_run_ends_in_a_sealed_run(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    store.put("exp/plan.json", b"{}")
    proxy.refuse(seconds=3)
    assert store.publish(FOLDER, files(large=LARGE))
    SealedRun(store, FOLDER).verify()


def test_a_server_that_is_killed_and_comes_back(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    store.publish(FOLDER, files())
    proxy.down(seconds=1.5)
    SealedRun(store, FOLDER).verify()
    assert store.folders() == [FOLDER]


def test_a_cut_upload_is_resumed_and_staged_blocks_are_not_sent_twice(proxy: FaultyProxy, container: str) -> None:
    proxy.cut_request(after=3_000_000, path=BLOCK, times=2)
    store = blob_store(container)
    store.put("exp/large", LARGE)
    assert store.get("exp/large") == LARGE
    assert proxy.count("PUT", BLOCK) == 6 + 2


_UPLOAD = """
import sys
from ticketsmith.store import open_store
print("begin", flush=True)
open_store(sys.argv[1]).put("exp/large", open(sys.argv[2], "rb").read())
"""


def test_after_a_kill_only_the_missing_blocks_are_sent(proxy: FaultyProxy, container: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    held = [proxy.hold(method="PUT", path=f"{BLOCK}.*") for _ in range(6)]
    uploading = subprocess.Popen([sys.executable, "-c", _UPLOAD, f"az://{container}/p", str(tmp_path / "large")])
    for one in held:
        assert one.come.wait(60)
    for one in held[:4]:
        one.release()
    deadline = time.monotonic() + 30
    while sum(r.status == 201 for r in proxy.requests) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    uploading.send_signal(signal.SIGKILL)
    uploading.wait()
    proxy.refuse()
    for one in held[4:]:
        one.release()
    proxy.listen()
    proxy.forget()
    store = open_store(f"az://{container}/p")
    store.put("exp/large", LARGE)
    assert proxy.count("PUT", BLOCK) <= 2
    assert store.get("exp/large") == LARGE


def test_of_a_cut_download_only_the_range_is_read_again(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    store.put("exp/large", LARGE)
    proxy.forget()
    proxy.cut_response(after=1_000_000, method="GET", times=3)
    assert store.get("exp/large") == LARGE
    assert proxy.count("GET") == 6 + 3


def test_bytes_that_are_damaged_on_their_way_are_not_taken(proxy: FaultyProxy, container: str) -> None:
    """The server checks the MD5 of each request; what it refuses for that is sent again."""
    store = blob_store(container)
    proxy.corrupt(method="PUT", path="small")
    proxy.corrupt(method="PUT", path=BLOCK)
    store.put("exp/small", b"small" * 1000)
    store.put("exp/large", LARGE)
    assert store.get("exp/small") == b"small" * 1000
    assert store.get("exp/large") == LARGE


def test_a_slow_line_carries_a_large_file(proxy: FaultyProxy, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out is for a line that stands still, not for a file that takes longer than it."""
    monkeypatch.setattr("ticketsmith.store.blob.persistence._CONNECT", 1.0)
    monkeypatch.setattr("ticketsmith.store.blob.persistence._ANSWER", 1.0)
    store = blob_store(container)
    proxy.slow(4_000_000)
    content = LARGE[: RANGE + RANGE // 2]
    store.put("exp/large", content)
    assert store.get("exp/large") == content
    assert all(request.status is not None for request in proxy.requests)


# Writers of one run


def test_a_late_writer_cannot_change_a_sealed_run(proxy: FaultyProxy, container: str, direct: BlobStore) -> None:
    """It looked, found no seal, and stalled just before its write, until another had sealed the run with other bytes."""
    direct.put(f"{FOLDER}/model.safetensors", b"left by a third, killed one")
    stalled = proxy.hold(method="PUT", path=f"model.safetensors.*{LIST}")
    outcome: list[bool] = []
    late = threading.Thread(
        target=lambda: outcome.append(blob_store(container).publish(FOLDER, files(environment=b"1")))
    )
    late.start()
    assert stalled.come.wait(30)
    assert direct.publish(FOLDER, {**files(environment=b"2")})
    stalled.release()
    late.join()
    assert outcome == [False]
    run = SealedRun(direct, FOLDER)
    run.verify()
    assert run.read("environment") == b"2"


def test_who_seals_mends_what_another_was_replacing_meanwhile(
    proxy: FaultyProxy, azurite: Azurite, container: str, direct: BlobStore
) -> None:
    """The other looked before the seal and writes after it: the seal waits for it, looks again, and puts its own bytes back."""
    with FaultyProxy(azurite.port) as second:
        sealing = proxy.hold(method="PUT", path=MANIFEST)
        replacing = second.hold(method="PUT", path=f"environment.*{LIST}")
        outcome: dict[str, bool] = {}
        first = threading.Thread(
            target=lambda: outcome.update(winner=blob_store(container).publish(FOLDER, files(environment=b"first")))
        )
        first.start()
        assert sealing.come.wait(30)  # its files are there, its seal is not
        other = BlobStore(BlobAddress(container, "p"), _through(second))
        late = threading.Thread(target=lambda: outcome.update(late=other.publish(FOLDER, files(environment=b"other"))))
        late.start()
        assert replacing.come.wait(30)  # it holds the file's lease and has found no seal
        sealing.release()
        deadline = time.monotonic() + 30
        while direct.folders() == [] and time.monotonic() < deadline:
            time.sleep(0.02)
        replacing.release()
        first.join()
        late.join()
    assert outcome == {"winner": True, "late": False}
    SealedRun(direct, FOLDER).verify()
    assert direct.get(f"{FOLDER}/environment") == b"first"


def _through(proxy: FaultyProxy) -> object:
    from azure.storage.blob import BlobServiceClient

    from tests.store.azurite import connection_string
    from ticketsmith.store.blob.sign_in import _settings

    return BlobServiceClient.from_connection_string(connection_string(proxy.port), **_settings())


def test_what_a_killed_writer_left_is_kept_where_it_is_right(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container)
    store.put(f"{FOLDER}/large", LARGE)
    store.put(f"{FOLDER}/model.safetensors", b"of another machine")
    proxy.forget()
    assert store.publish(FOLDER, files(large=LARGE))
    assert proxy.count("PUT", "large") == 0
    SealedRun(store, FOLDER).verify()


# Claims


def test_a_claim_is_renewed_while_it_is_held_and_one_that_is_lost_in_an_outage_does_not_end_the_work(
    proxy: FaultyProxy, container: str, direct: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Two claims of 15 s, the shortest that Azure knows: one of a machine that stays in touch, one of another."""
    began = time.monotonic()
    store, direct._claim_seconds = blob_store(container, claim_seconds=15), 15
    with direct.claim(OTHER) as in_touch, store.claim(RUN) as granted:
        assert in_touch
        assert granted
        proxy.refuse()
        deadline, taken = time.monotonic() + 40, False
        while not taken and time.monotonic() < deadline:
            with direct.claim(RUN) as taken:
                if taken:
                    proxy.listen()
                    assert store.publish(FOLDER, files())
                    until = time.monotonic() + 10
                    while "first to publish wins" not in caplog.text and time.monotonic() < until:
                        time.sleep(0.1)  # the renewer finds that the claim has gone
            time.sleep(0.0 if taken else 0.5)
        assert taken
        time.sleep(max(0.0, began + 17 - time.monotonic()))
        with store.claim(OTHER) as another:
            assert not another
    assert "first to publish wins" in caplog.text
    SealedRun(direct, FOLDER).verify()


# What is told


def test_a_store_that_stays_away_is_told_with_its_place_and_the_mend(proxy: FaultyProxy, container: str) -> None:
    store = blob_store(container, patience=1)
    store.put("exp/plan.json", b"{}")
    proxy.refuse()
    for attempt in (
        lambda: store.get("exp/plan.json"),
        lambda: store.put("exp/plan.json", LARGE),
        lambda: store.publish(FOLDER, files()),
        lambda: store.folders(),
        lambda: store.delete("exp/plan.json"),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnreachableError, match=rf"az://{container}/p: .* failed for 1 s: .*again") as error:
            attempt()
        assert time.monotonic() - began < 6
        assert error.value.__cause__ is None
        assert KEY not in str(error.value)


def test_checkpoints_are_given_up_soon(proxy: FaultyProxy, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketsmith.store.blob.store.BRIEF", 1.0)
    store = blob_store(container)
    store.put("exp/plan.json", b"{}")
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError):
        store.put(f".work/{RUN}.checkpoint", LARGE)
    with pytest.raises(StoreUnreachableError):
        store.delete(f".work/{RUN}.checkpoint")
    assert time.monotonic() - began < 10


def test_a_container_is_made_when_it_is_first_written(azurite: Azurite, container: str) -> None:
    other = f"{container}-new"
    store = blob_store(other)
    assert store.folders() == []
    assert store.experiments() == []
    assert store.files() == []
    assert store.get("exp/plan.json") is None
    store.delete("exp/plan.json")
    assert store.publish(FOLDER, files(large=LARGE))
    SealedRun(store, FOLDER).verify()
    with blob_store(f"{container}-claims").claim(RUN) as granted:
        assert granted


def test_checkpoints_and_claims_may_lie_in_a_container_of_their_own(
    container: str, client: ContainerClient, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETSMITH_SCRATCH_CONTAINER", f"{container}-scratch")
    store = open_store(f"az://{container}/p")
    store.put(f".work/{RUN}.checkpoint", b"state")
    store.publish(FOLDER, files())
    with store.claim(RUN) as granted:
        assert granted
        assert store.get(f".work/{RUN}.checkpoint") == b"state"
        assert all(".work" not in name for name in client.list_blob_names())
        assert store.files(".work")[0].path == f".work/{RUN}.checkpoint"
    scratch = ContainerClient.from_connection_string(azurite.connection_string, f"{container}-scratch")
    with scratch:
        assert list(scratch.list_blob_names()) == [f"p/.work/{RUN}.checkpoint"]


def test_no_log_holds_the_key(
    proxy: FaultyProxy, container: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    store = blob_store(container, patience=6)
    proxy.answer(503, times=3)
    store.publish(FOLDER, files())
    proxy.refuse()
    store._persistence.patience = 1
    with pytest.raises(StoreUnreachableError):
        store.get("exp/plan.json")
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in repr(store) + store.url + repr(vars(store))


def test_what_somebody_holds_a_lease_on_is_told(container: str, client: ContainerClient) -> None:
    store = blob_store(container)
    store.put("exp/plan.json", b"{}")
    lease = client.get_blob_client("p/exp/plan.json").acquire_lease()
    with pytest.raises(StoreError, match=r"exp/plan.json failed: somebody holds a lease.*az storage blob lease break"):
        store.put("exp/plan.json", b"[]")
    lease.release()
