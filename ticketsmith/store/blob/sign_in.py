"""Who we are to Azure: from the environment alone. No key ever leaves this module, except to Azure's own SDK."""

from __future__ import annotations

import logging
import os
import re
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient

from ticketsmith.errors import RecipeError
from ticketsmith.store.address import check_container
from ticketsmith.store.blob.content import RANGE
from ticketsmith.version import __version__

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
TOKEN_FILE = "AZURE_FEDERATED_TOKEN_FILE"
SCRATCH = "TICKETSMITH_SCRATCH_CONTAINER"

_CONNECTIONS = 64
_ACCOUNT_NAME = re.compile(r"[a-z0-9]{3,24}")


def sign_in() -> BlobServiceClient:
    """A client of the account that the environment names; nothing is sent yet. Raises RecipeError."""
    return _client(*(os.environ.get(name) for name in (CONNECTION_STRING, ACCOUNT, TOKEN_FILE)))


@lru_cache(maxsize=4)  # one connection pool and one token, however often a command opens the store
def _client(connection_string: str | None, account: str | None, token_file: str | None) -> BlobServiceClient:
    _keep_logs_clean()
    if connection_string:
        try:
            return BlobServiceClient.from_connection_string(connection_string, **_settings())
        except Exception:  # the SDK raises many kinds, and their texts may repeat the key
            raise RecipeError(
                f"{CONNECTION_STRING} is not a connection string. Copy it anew from the storage account's access keys, or "
                "unset it and give AZURE_STORAGE_ACCOUNT."
            ) from None
    if account:
        return BlobServiceClient(_endpoint(account), credential=_credential(token_file), **_settings())
    raise RecipeError(
        f"az:// needs a storage account: set {ACCOUNT} to its name (then `az login`, or Workload Identity in a pod), or "
        f"{CONNECTION_STRING} to its connection string."
    )


if hasattr(os, "register_at_fork"):
    # Two processes that share a connection read each other's answers.
    os.register_at_fork(after_in_child=_client.cache_clear)


def scratch_container() -> str | None:
    """Another container for checkpoints and claims, by ``TICKETSMITH_SCRATCH_CONTAINER``; None: the store's own."""
    name = os.environ.get(SCRATCH)
    return check_container(name) if name else None


def _endpoint(account: str) -> str:
    if "://" not in account:
        if not _ACCOUNT_NAME.fullmatch(account):
            raise RecipeError(
                f"{ACCOUNT} is neither the name of a storage account (3 to 24 lower-case letters and digits) nor the "
                "address of its blob endpoint, such as https://myaccount.blob.core.windows.net"
            )
        return f"https://{account}.blob.core.windows.net"
    parts = urlsplit(account)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.username or parts.fragment:
        raise RecipeError(
            f"{ACCOUNT}: give the name of the account, or its blob endpoint by https and without key or signature, such as "
            "https://myaccount.blob.core.windows.net"
        )
    return account.rstrip("/")


def _credential(token_file: str | None) -> TokenCredential:
    """Workload Identity where a pod has it; else what azure-identity finds, the Azure CLI's sign-in among it."""
    from azure.identity import DefaultAzureCredential, WorkloadIdentityCredential

    if token_file:
        # Not left to the default chain: it would go on to other identities and hide what is wrong with this one.
        try:
            return WorkloadIdentityCredential()
        except ValueError:
            raise RecipeError(
                "Workload Identity is set up in part only: beside AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_ID and "
                "AZURE_TENANT_ID must be set. Has the pod's service account the annotation azure.workload.identity/client-id?"
            ) from None
    return DefaultAzureCredential()


def _settings() -> dict[str, Any]:
    """What every client is made with. Retrying is ours (``Persistence``), so the SDK's is switched off."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
    return {
        "transport": RequestsTransport(session=session, session_owner=False),
        "retry_total": 0,
        "max_single_get_size": RANGE,
        "max_chunk_get_size": RANGE,
        "user_agent": f"ticketsmith/{__version__}",
    }


class _Redacted(logging.Filter):
    """Takes signatures out of addresses that urllib3 logs when somebody asks for every detail."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = re.sub(r"(?i)\bsig=[^&\s\"']+", "sig=REDACTED", record.getMessage()), ()
        return True


def _keep_logs_clean() -> None:
    chatty = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(one, _Redacted) for one in chatty.filters):
        chatty.addFilter(_Redacted())
        logging.getLogger("azure").addHandler(logging.NullHandler())  # what is worth telling, we tell, once
