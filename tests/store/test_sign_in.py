"""Signing in: what the environment says, what is told when it is wrong, and that no secret is ever seen."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import logging
import os
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.store.azurite import ACCOUNT, CONNECTION_STRING, KEY, Azurite
from tests.store.places import FOLDER, files
from tests.store.proxy import FaultyProxy
from ticketsmith.errors import Exit, RecipeError, StoreError, StoreUnreachableError
from ticketsmith.store import open_store
from ticketsmith.store.blob import sign_in
from ticketsmith.store.contract import SealedRun

TENANT = "11111111-2222-3333-4444-555555555555"
AZURE_VARIABLES = [
    CONNECTION_STRING,
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_AUTHORITY_HOST",
]


@pytest.fixture(autouse=True)
def signed_out() -> None:
    """What another test signed in with counts no more."""
    sign_in._client.cache_clear()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of Azure."""
    for name in AZURE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "az://c/p?sv=2024&sig=SECRET%2Fsignature",
        "az://account:SECRET@c/p",
        "az://SECRET@c",
        "az://c/sig=SECRET",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(address: str, container: str) -> None:
    with pytest.raises(RecipeError, match="renew it") as error:
        open_store(address)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("az://", "no name of a container"),
        ("az:/c/p", "one slash too few: write az://c/p"),
        ("az://UPPER/p", "lower-case"),
        ("az://ab", "3 to 63"),
        ("az://abc--d", "single hyphens"),
        ("az://abc/../d", "no part of a prefix"),
        ("az://abc/a//b", "no part of a prefix"),
        ("az://abc/a\\b", "no part of a prefix"),
        ("https://account.blob.core.windows.net/c?sig=SECRET", "unknown kind of store"),
        ("abfss://c@account.dfs.core.windows.net/p", "unknown kind of store"),
    ],
)
def test_a_wrong_address_is_refused_with_the_mend(address: str, said: str, container: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        open_store(address)
    assert "SECRET" not in str(error.value)


def test_an_address_has_one_form(container: str) -> None:
    assert open_store(f"az://{container}/a/b/").url == f"az://{container}/a/b"
    assert open_store(f"az://{container}/").url == f"az://{container}"


# What is missing


def test_an_environment_that_says_nothing(nobody: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"set AZURE_STORAGE_ACCOUNT.*or AZURE_STORAGE_CONNECTION_STRING"):
        open_store("az://abc")


@pytest.mark.parametrize(
    "text", ["SECRET", "AccountKey=SECRET", "AccountName=a;AccountKey", "BlobEndpoint=;AccountKey=SECRET", ";;"]
)
def test_a_connection_string_that_is_none(nobody: pytest.MonkeyPatch, text: str) -> None:
    nobody.setenv(CONNECTION_STRING, text)
    with pytest.raises(RecipeError, match="not a connection string") as error:
        open_store("az://abc")
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("account", ["Not An Account", "http://a.blob.core.windows.net", "https://a/?sig=SECRET"])
def test_an_account_that_is_none(nobody: pytest.MonkeyPatch, account: str) -> None:
    nobody.setenv("AZURE_STORAGE_ACCOUNT", account)
    with pytest.raises(RecipeError, match="AZURE_STORAGE_ACCOUNT") as error:
        open_store("az://abc")
    assert "SECRET" not in str(error.value)


def test_workload_identity_in_part(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody.setenv("AZURE_STORAGE_ACCOUNT", "anaccount")
    nobody.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(RecipeError, match=r"AZURE_CLIENT_ID and AZURE_TENANT_ID must be set"):
        open_store("az://abc")


def test_the_emulator_s_own_word_is_a_connection_string(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv(CONNECTION_STRING, "UseDevelopmentStorage=true")
    assert open_store("az://abc").url == "az://abc"


_NO_PACKAGE = """
import sys
sys.modules["azure.storage.blob"] = sys.modules["azure.identity"] = sys.modules["azure.core"] = None
from ticketsmith.errors import RecipeError
from ticketsmith.store import open_store
try:
    open_store("az://abc")
except RecipeError as error:
    print(error)
"""


def test_missing_packages_are_named(container: str) -> None:
    done = subprocess.run([sys.executable, "-c", _NO_PACKAGE], capture_output=True, text=True, check=True)
    assert "pip install 'ticketsmith[azure]'" in done.stdout


def test_a_local_store_does_not_import_the_sdk() -> None:
    code = "import sys; from ticketsmith.store import open_store; open_store('runs'); print('azure' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# What the server refuses


def test_a_wrong_key(container: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = base64.b64encode(b"another key" * 5).decode()
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string.replace(KEY, wrong))
    began = time.monotonic()
    for attempt in (open_store(f"az://{container}").folders, lambda: open_store(f"az://{container}").put("a/b", b"")):
        with pytest.raises(StoreError, match="the key belongs to this account") as error:
            attempt()
        assert wrong not in str(error.value)
        assert error.value.exit_status is Exit.INCOMPLETE
    assert time.monotonic() - began < 10


def test_a_key_that_is_no_key(container: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string.replace(KEY, "abc"))
    with pytest.raises(StoreError, match="Copy the connection string anew"):
        open_store(f"az://{container}").get("exp/plan.json")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AuthenticationFailed", "renewed, and that this machine's clock is right"),
        ("AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
        ("AuthorizationFailure", "network rules"),
        ("KeyBasedAuthenticationNotPermitted", "az login"),
        ("SomethingNew", "403 SomethingNew.*Storage Blob Data Contributor"),
    ],
)
def test_what_is_forbidden_is_told_with_its_mend(proxy: FaultyProxy, container: str, code: str, said: str) -> None:
    store = open_store(f"az://{container}")
    proxy.answer(403, code)
    with pytest.raises(StoreError, match=said):
        store.put("exp/plan.json", b"{}")
    assert proxy.count() == 1


def test_an_immutability_policy_that_forbids_is_told(proxy: FaultyProxy, container: str) -> None:
    store = open_store(f"az://{container}")
    proxy.answer(409, "BlobImmutableDueToPolicy")
    with pytest.raises(StoreError, match=r"immutability policy.*TICKETSMITH_SCRATCH_CONTAINER"):
        store.put("exp/plan.json", b"{}")


def test_a_container_that_may_not_be_made(proxy: FaultyProxy, container: str) -> None:
    store = open_store(f"az://{container}-missing")
    proxy.answer(403, "AuthorizationPermissionMismatch", method="PUT", path="restype=container")
    with pytest.raises(StoreError, match=rf"az storage container create --name {container}-missing"):
        store.publish(FOLDER, files())


def test_an_account_that_does_not_exist_is_not_waited_for_long(
    nobody: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsmith.store.blob.persistence.FIRST_CONTACT", 2.0)
    nobody.setenv(CONNECTION_STRING, f"BlobEndpoint=https://no-such-account.invalid;AccountName=x;AccountKey={KEY}")
    with pytest.raises(StoreUnreachableError, match=r"name is not known.*the name in AZURE_STORAGE_ACCOUNT"):
        open_store("az://abc").get("exp/plan.json")


# Signatures


def test_a_signature_works_and_is_never_seen(
    proxy: FaultyProxy, container: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    signature = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, write=True, list=True, create=True, delete=True),
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
    secret = signature.partition("sig=")[2].partition("&")[0]
    assert len(secret) > 20
    endpoint = f"BlobEndpoint=http://127.0.0.1:{proxy.port}/{ACCOUNT}"
    monkeypatch.setenv(CONNECTION_STRING, f"{endpoint};SharedAccessSignature={signature}")
    monkeypatch.setattr("ticketsmith.store.blob.persistence.PATIENT", 2.0)
    store = open_store(f"az://{container}/p")
    assert store.publish(FOLDER, files())
    SealedRun(store, FOLDER).verify()
    proxy.answer(403, "AuthorizationPermissionMismatch")
    with pytest.raises(StoreError) as forbidden:
        store.get("exp/plan.json")
    proxy.refuse()
    monkeypatch.setattr(store._persistence, "patience", 1.0)  # type: ignore[attr-defined]
    with pytest.raises(StoreUnreachableError) as away:
        store.get("exp/plan.json")
    seen = caplog.text + str(forbidden.value) + str(away.value) + repr(store) + store.url
    assert "sig=REDACTED" in caplog.text
    assert secret not in seen
    assert secret.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=") not in seen


# Tokens


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine's own for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def secure(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An Azurite by https that takes tokens."""
    server = Azurite(tmp_path_factory.mktemp("secure"), *certificate).start()
    with BlobServiceClient.from_connection_string(
        server.connection_string, connection_verify=str(certificate[0])
    ) as client:
        client.create_container("tokens")
    yield server
    server.stop()


def token(seconds: float = 3600.0, audience: str = "https://storage.azure.com") -> str:
    """What Azure's sign-in would give, without a signature that Azurite would check."""
    now = time.time()
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": int(now - 60),
        "nbf": int(now - 60),
        "exp": int(now + seconds),
    }
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


@pytest.fixture
def by_token(nobody: pytest.MonkeyPatch, secure: Azurite, certificate: tuple[Path, Path]) -> pytest.MonkeyPatch:
    nobody.setenv("AZURE_STORAGE_ACCOUNT", secure.endpoint)
    nobody.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    return nobody


def use_it(name: str) -> None:
    store = open_store(f"az://tokens/{name}")
    assert store.publish(FOLDER, files())
    SealedRun(store, FOLDER).verify()
    with store.claim("ab" * 32) as granted:
        assert granted


class _Authority(BaseHTTPRequestHandler):
    """Where Workload Identity exchanges a pod's token for one of Azure."""

    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.path, body))
        answer = json.dumps({"access_token": token(), "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_workload_identity(by_token: pytest.MonkeyPatch, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """As a pod has it: client and tenant, a projected token, and no secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    _Authority.asked = []
    authority = HTTPServer(("127.0.0.1", 0), _Authority)
    authority.socket = context.wrap_socket(authority.socket, server_side=True)
    threading.Thread(target=authority.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("the pod's own token")
    by_token.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{authority.server_port}")
    by_token.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    by_token.setenv("AZURE_CLIENT_ID", "66666666-7777-8888-9999-000000000000")
    by_token.setenv("AZURE_TENANT_ID", TENANT)
    try:
        use_it("workload")
    finally:
        authority.shutdown()
        authority.server_close()
    assert _Authority.asked[0][0] == f"/{TENANT}/oauth2/v2.0/token"
    assert "client_assertion=the+pod%27s+own+token" in _Authority.asked[0][1]
    assert len(_Authority.asked) == 1


def fake_cli(folder: Path, script: str) -> None:
    (folder / "az").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "az").chmod(0o755)


def test_the_azure_cli_s_sign_in(by_token: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = {"accessToken": token(), "expires_on": int(time.time() + 3600), "tenant": TENANT, "tokenType": "Bearer"}
    fake_cli(tmp_path, f"echo '{json.dumps(answer)}'")
    by_token.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert (tmp_path / "az").stat().st_mode & stat.S_IXUSR
    use_it("cli")


def test_nobody_is_signed_in(by_token: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake_cli(tmp_path, "echo 'Please run az login' >&2; exit 1")
    by_token.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"no sign-in to Azure.*az login"):
        open_store("az://tokens/nobody").put("exp/plan.json", b"{}")
    assert time.monotonic() - began < 30
    assert "DefaultAzureCredential" not in capfd.readouterr().err


def test_a_token_for_something_else(by_token: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = {"accessToken": token(audience="https://graph.microsoft.com"), "expires_on": int(time.time() + 3600)}
    fake_cli(tmp_path, f"echo '{json.dumps(answer)}'")
    by_token.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StoreError, match="does not accept the key or sign-in") as error:
        open_store("az://tokens/wrong").put("exp/plan.json", b"{}")
    assert "eyJ" not in str(error.value)


def test_a_certificate_that_is_not_trusted_is_told_at_once(nobody: pytest.MonkeyPatch, secure: Azurite) -> None:
    nobody.setenv(CONNECTION_STRING, secure.connection_string)
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"certificate of https://127\.0\.0\.1.* is not trusted"):
        open_store("az://tokens").get("exp/plan.json")
    assert time.monotonic() - began < 10


def test_a_forked_process_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked from a copy of the command, which has opened the store: on one socket they mix their answers up."""
    key = base64.b64encode(b"key").decode()
    monkeypatch.setenv(
        CONNECTION_STRING,
        f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};BlobEndpoint=http://127.0.0.1:1/a",
    )
    client = sign_in.sign_in()
    assert sign_in.sign_in() is client
    pid = os.fork()
    if pid == 0:
        os._exit(0 if sign_in.sign_in() is not client else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
