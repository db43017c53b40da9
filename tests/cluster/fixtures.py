"""The cluster of a test: a fake one, or the disposable one that ``KUBECONFIG`` names.

A real one is only taken with ``TICKETSMITH_TEST_CLUSTER=1``, and then tests work in namespaces of their own; the image is
``TICKETSMITH_TEST_IMAGE``. What ``FakeCluster`` and ``RealCluster`` have in common is what tests may use:
``kubeconfig``, ``namespace``, ``image``, ``job``, ``pods``, ``events``, ``log``, ``add_secret``, ``add_account``,
``kubeconfig_of``, ``wait_for`` and ``faults`` (a fault that only the fake knows skips the test on a real one).

A folder of tests has the fixtures when its ``conftest.py`` imports them from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.cluster.fake import FakeCluster
from tests.cluster.real import RealCluster, is_offered

Cluster = FakeCluster | RealCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with room for pods of 8 CPUs in all."""
    with RealCluster(tmp_path) if is_offered() else FakeCluster(tmp_path) as one:
        yield one


@pytest.fixture
def fake_cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Always the fake, for what cannot be set up in a real one: pools, clocks, faults."""
    with FakeCluster(tmp_path) as one:
        yield one


def client_of(cluster: Cluster, account: str | None = None) -> Any:
    """The official client, as the administrator or as a service account. It does not repeat requests by itself."""
    settings = client.Configuration()
    path = cluster.kubeconfig if account is None else cluster.kubeconfig_of(account)
    config.load_kube_config(str(path), client_configuration=settings)
    settings.retries = False
    return client.ApiClient(settings)
