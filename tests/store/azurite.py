"""A real Azurite for tests: Microsoft's emulator of Azure Blob Storage, started by the tests themselves.

It is looked for in ``$AZURITE``, a folder with ``node_modules/azurite``, and in ``tests/tools``, where
``scripts/install_azurite.sh`` puts it. Tests that need it are skipped where it is not, and fail in CI.

Fixtures, known to all tests by ``tests/conftest.py``:

- ``azurite``: one server for the session. Its port stays the same over ``stop()`` and ``start()``, and so do its data.
- ``container``: the name of a new, empty container of it; ``AZURE_STORAGE_CONNECTION_STRING`` is set, here and for
  processes that the test starts, so ``az://<container>/<prefix>`` can be opened.
- ``proxy``: a ``FaultyProxy`` before the server; the variable then leads through it. See ``tests/store/proxy.py``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.proxy import FaultyProxy

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's well-known account: published by Microsoft, the same on every machine, no secret."""

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
PODS_CONNECTION = "TICKETSMITH_TEST_PODS_CONNECTION_STRING"
"""How pods of a real cluster reach the store of the tests; ``{port}`` in it stands for the port, which is another each
time. While it is set, the server listens on every address of this machine."""

_TOOLS = Path(__file__).resolve().parents[1] / "tools"
_BLOB_SERVER = "node_modules/azurite/dist/src/blob/main.js"


class Azurite:
    """A server with its data in ``folder``. ``certificate`` and ``key`` (PEM files) switch https and OAuth on."""

    def __init__(self, folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self._more = ["--oauth", "basic", "--cert", str(certificate), "--key", str(key)] if certificate else []
        self._scheme = "https" if certificate else "http"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The blob endpoint, account included."""
        return f"{self._scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return connection_string(self.port, self._scheme)

    @property
    def pods_connection_string(self) -> str | None:
        """The same for pods of a real cluster; None when nobody said how they reach this machine."""
        given = os.environ.get(PODS_CONNECTION)
        return given.replace("{port}", str(self.port)) if given else None

    def start(self) -> Azurite:
        """Starts it on its port, with the data that it had; returns when it answers."""
        script, node = find()
        self.folder.mkdir(parents=True, exist_ok=True)
        everywhere = PODS_CONNECTION in os.environ  # an account in the path then, whatever the host's name
        host = ["0.0.0.0", "--disableProductStyleUrl"] if everywhere else ["127.0.0.1"]
        command = [node, str(script), "--blobHost", *host, "--blobPort", str(self.port)]
        command += ["--location", str(self.folder), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        with (self.folder / "azurite.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._more], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 60
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Azurite did not start: {(self.folder / 'azurite.log').read_text()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Ends it. By SIGTERM: on SIGKILL Azurite, unlike Azure, forgets what it acknowledged in the last seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for a connection that somebody keeps open
                self._process.kill()
                self._process.wait()
            self._process = None


def connection_string(port: int, scheme: str = "http") -> str:
    """What leads to the server at a port of this machine, or to a proxy before it."""
    return (
        f"DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint={scheme}://127.0.0.1:{port}/{ACCOUNT};"
    )


def find() -> tuple[Path, str]:
    """Azurite's blob server and node; without them the test is skipped, in CI it fails."""
    folders = [Path(os.environ["AZURITE"])] if os.environ.get("AZURITE") else [_TOOLS]
    script = next((folder / _BLOB_SERVER for folder in folders if (folder / _BLOB_SERVER).is_file()), None)
    node = shutil.which("node")
    if script is None or node is None:
        what = "node" if node is None else "Azurite (scripts/install_azurite.sh installs it)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {what} on this machine")
    return script, node


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azurite")).start()
    yield server
    server.stop()


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    from azure.storage.blob import ContainerClient

    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string)
    name = f"test-{secrets.token_hex(8)}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        client.create_container()
    return name


@pytest.fixture
def proxy(azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(azurite.port, azurite) as between:
        monkeypatch.setenv(CONNECTION_STRING, connection_string(between.port))
        yield between
