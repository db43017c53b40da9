"""Faults do what they say: requests that are late, refused, lost; watches that break; clocks that are off."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.cluster.examples import INDEXED, STOPS_WITH_130, job
from tests.cluster.fixtures import FakeCluster, client_of
from tests.cluster.test_job_controller import end, running, start

LOST = (urllib3.exceptions.HTTPError, ConnectionError)


@pytest.fixture
def core(fake_cluster: FakeCluster) -> CoreV1Api:
    return CoreV1Api(client_of(fake_cluster))


def config_map(name: str) -> Any:
    return {"metadata": {"name": name, "labels": {"mine": "1"}}}


def names(core: CoreV1Api, cluster: FakeCluster, **query: Any) -> list[str]:
    found = core.list_namespaced_config_map(cluster.namespace, label_selector="mine", **query)
    return [item.metadata.name for item in found.items]


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_refused_for_a_while(fake_cluster: FakeCluster, core: CoreV1Api, status: int) -> None:
    fake_cluster.faults.fail(status, "POST", "/configmaps", count=2, retry_after=1 if status == 429 else 0)
    for _ in range(2):
        with pytest.raises(ApiException) as error:
            core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
        assert error.value.status == json.loads(error.value.body)["code"] == status
        assert (error.value.headers.get("Retry-After") == "1") == (status == 429)
    assert names(core, fake_cluster) == []
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    assert names(core, fake_cluster) == ["a"]


def test_late(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    fake_cluster.faults.delay(0.5, "GET", count=1)
    began = time.monotonic()
    assert names(core, fake_cluster) == []
    assert time.monotonic() - began >= 0.5


def test_the_answer_is_lost_after_the_write(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    fake_cluster.faults.lose_answer("POST")
    with pytest.raises(LOST):
        core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    assert names(core, fake_cluster) == ["a"]


def test_the_connection_is_cut_before_the_write(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    fake_cluster.faults.cut_before("POST")
    with pytest.raises(LOST):
        core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    assert names(core, fake_cluster) == []


def test_connections_are_refused_while_the_server_is_away(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    """What runs goes on meanwhile; afterwards everything is at its old place."""
    start(fake_cluster, job("one", "import time; time.sleep(0.3)"))
    with fake_cluster.faults.refused(), pytest.raises(LOST):
        names(core, fake_cluster)
    assert end(fake_cluster, "one")["succeeded"] == 1
    fake_cluster.faults.refuse(0.3)
    with pytest.raises(LOST):
        names(core, fake_cluster)
    time.sleep(0.6)
    assert names(core, fake_cluster) == []


def lines(core: CoreV1Api, cluster: FakeCluster, **query: Any) -> Any:
    """The raw events of a watch, as they come."""
    answer = core.list_namespaced_config_map(
        cluster.namespace, label_selector="mine", watch=True, _preload_content=False, **query
    )
    for line in urllib3_lines(answer):
        yield json.loads(line)


def urllib3_lines(answer: Any) -> Any:
    rest = b""
    for piece in answer.stream(amt=None, decode_content=False):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def test_watches_break(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    events = lines(core, fake_cluster)
    assert next(events)["type"] == "ADDED"
    assert fake_cluster.faults.cut_watches() == 1
    with pytest.raises(LOST):
        next(events)


def test_watches_expire(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    made = core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    events = lines(core, fake_cluster)
    next(events)
    fake_cluster.faults.expire_watches()
    last = next(events)
    assert (last["type"], last["object"]["code"], last["object"]["reason"]) == ("ERROR", 410, "Expired")
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("b"))
    fake_cluster.faults.compact()
    last = next(lines(core, fake_cluster, resource_version=made.metadata.resource_version))
    assert (last["type"], last["object"]["code"]) == ("ERROR", 410)
    assert "too old resource version" in last["object"]["message"]


def test_a_continued_list_expires(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    for name in "abc":
        core.create_namespaced_config_map(fake_cluster.namespace, config_map(name))
    token = core.list_namespaced_config_map(fake_cluster.namespace, limit=1).metadata._continue
    fake_cluster.faults.compact()
    with pytest.raises(ApiException) as error:
        core.list_namespaced_config_map(fake_cluster.namespace, limit=1, _continue=token)
    assert error.value.status == 410


def test_only_lists_that_allow_it_are_stale(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    time.sleep(0.3)
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("b"))
    fake_cluster.faults.stale_lists(0.2)
    assert names(core, fake_cluster, resource_version="0") == ["a"]
    assert names(core, fake_cluster) == ["a", "b"]


def test_the_clock_is_off(fake_cluster: FakeCluster) -> None:
    fake_cluster.faults.shift_clock(-3600)
    made = BatchV1Api(client_of(fake_cluster)).create_namespaced_job(
        fake_cluster.namespace, job("one", STOPS_WITH_130, activeDeadlineSeconds=600)
    )
    assert 3500 < (datetime.now(UTC) - made.metadata.creation_timestamp).total_seconds() < 3700
    running(fake_cluster, "one")
    fake_cluster.faults.shift_clock(601)  # time passes
    end(fake_cluster, "one")
    assert fake_cluster.job("one")["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"


def test_one_index_runs_twice(fake_cluster: FakeCluster) -> None:
    name = start(fake_cluster, job("one", STOPS_WITH_130, backoffLimitPerIndex=1, **INDEXED))
    running(fake_cluster, name, 2)
    twin = fake_cluster.faults.run_twice(name, 0)
    pods = running(fake_cluster, name, 3)
    same = [p["metadata"]["name"] for p in pods if p["spec"]["hostname"] == "one-0"]
    assert len(same) == 2
    assert twin in same


def test_the_audit_log_has_every_request(fake_cluster: FakeCluster, core: CoreV1Api) -> None:
    fake_cluster.add_account("worker")
    core.create_namespaced_config_map(fake_cluster.namespace, config_map("a"))
    with pytest.raises(ApiException):
        CoreV1Api(client_of(fake_cluster, "worker")).list_namespaced_secret(fake_cluster.namespace)
    told = [(request.user.name, request.verb, request.status) for request in fake_cluster.audit]
    assert ("kubernetes-admin", "create", 201) in told
    assert (f"system:serviceaccount:{fake_cluster.namespace}:worker", "list", 403) in told
    assert any(b'"name": "a"' in request.body for request in fake_cluster.audit)
