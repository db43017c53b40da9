"""Gives the fixtures to the tests of this folder."""

from tests.cluster.fixtures import cluster, fake_cluster

__all__ = ["cluster", "fake_cluster"]
