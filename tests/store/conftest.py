"""A store of each kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.store.azurite import CONNECTION_STRING
from tests.store.places import Place, blob_place, folder_place


@pytest.fixture
def client(container: str) -> Iterator[ContainerClient]:
    """The container, past the store."""
    with ContainerClient.from_connection_string(os.environ[CONNECTION_STRING], container) as found:
        yield found


@pytest.fixture(params=["folder", "blob", "blob without prefix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path / "runs")
    return blob_place(request.getfixturevalue("client"), "some/prefix" if request.param == "blob" else "")


@pytest.fixture
def blob(client: ContainerClient) -> Place:
    return blob_place(client, "some/prefix")
