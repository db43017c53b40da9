"""The emulator that the tests start can be reached by pods of a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.store.azurite import ACCOUNT, KEY, PODS_CONNECTION, Azurite


def test_pods_reach_it_by_an_address_of_this_machine_and_the_port_of_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = "127.0.0.2"  # nobody answers there who listens on 127.0.0.1 alone
    parts = ("DefaultEndpointsProtocol=http", f"AccountName={ACCOUNT}", f"AccountKey={KEY}")
    monkeypatch.setenv(PODS_CONNECTION, ";".join([*parts, f"BlobEndpoint=http://{host}:{{port}}/{ACCOUNT}"]))
    server = Azurite(tmp_path).start()
    try:
        told = server.pods_connection_string
        assert told is not None
        assert f"http://{host}:{server.port}/" in told
        for connection in (told, server.connection_string):  # as pods see it, and as the tests do
            with ContainerClient.from_connection_string(connection, "shared") as client:
                if connection is told:
                    client.create_container()
                assert client.exists()
    finally:
        server.stop()
