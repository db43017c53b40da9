"""What Azure's errors mean to a user: one sentence with the cause and the mend, and never a key or a signature.

Texts of the SDK are not repeated: they may hold addresses with signatures, or what was signed.
"""

from __future__ import annotations

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError

from ticketsmith.errors import StoreError

_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_TRANSIENT_CODE = {"ContainerBeingDeleted", "Md5Mismatch", "OperationTimedOut", "ServerBusy", "InternalError"}
_GO_ON = "Sealed runs are safe, and the same command goes on from them."
_ROLE = "Storage Blob Data Contributor"


def code_of(error: AzureError) -> str:
    """Azure's own name for an error, such as ``BlobNotFound``; empty when there was no answer or it had none."""
    code = getattr(error, "error_code", None)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(getattr(code, "value", code) or headers.get("x-ms-error-code") or "")


def status_of(error: AzureError) -> int | None:
    """The HTTP status, None when there was no answer of the store."""
    return getattr(error, "status_code", None) if isinstance(error, HttpResponseError) else None


def is_there(error: AzureError) -> bool:
    """True when ``If-None-Match: *`` was refused: the blob is there already. (Other conflicts have the same status.)"""
    return code_of(error) in ("BlobAlreadyExists", "ConditionNotMet")


def may_pass(error: AzureError) -> bool:
    """True when the same request may succeed later."""
    if isinstance(error, ClientAuthenticationError):
        return False
    if isinstance(error, ServiceRequestError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    if code_of(error) == "InvalidOperation":
        return "MD5" in str(error)  # Azurite's Md5Mismatch
    status = status_of(error)
    return status is None or status in _TRANSIENT_STATUS or code_of(error) in _TRANSIENT_CODE


def seconds_to_wait(error: AzureError) -> float:
    """What the server asks for by Retry-After (in seconds, as Azure does); 0 when it asks for nothing."""
    response = getattr(error, "response", None)
    asked = (getattr(response, "headers", None) or {}).get("Retry-After", "")
    return float(asked) if asked.replace(".", "", 1).isdigit() else 0.0


def reason(error: AzureError) -> str:
    """Why there was no good answer, in a few words."""
    status = status_of(error)
    if status is not None:
        code = code_of(error)
        return f"it answered {status}" + (f" {code}" if code else "")
    text = str(error)
    for sign, words in (
        ("Name or service not known", "its name is not known"),
        ("NameResolution", "its name is not known"),
        ("refused", "the connection was refused"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("reset", "the connection broke off"),
        ("Connection broken", "the connection broke off"),
        ("aborted", "the connection broke off"),
        ("IncompleteRead", "the connection broke off"),
    ):
        if sign.lower() in text.lower():
            return words
    return "the connection failed"


def explained(error: AzureError, url: str, endpoint: str, doing: str) -> StoreError:
    """An error that trying again does not mend, as a user can read it. ``doing`` is what was tried: ``reading x``."""
    status, code = status_of(error), code_of(error)
    return StoreError(f"{url}: {doing} failed: {_cause(error, status, code, endpoint)} {_GO_ON}")


def _cause(error: AzureError, status: int | None, code: str, endpoint: str) -> str:
    if isinstance(error, ClientAuthenticationError) and status is None:
        kind = type(error).__name__
        if kind == "AzureSigningError":
            return "the key in AZURE_STORAGE_CONNECTION_STRING is none. Copy the connection string anew."
        return (
            "no sign-in to Azure was found or accepted. On a laptop give `az login`; in a pod check Workload Identity: the "
            "label azure.workload.identity/use on the pod, the client id on its service account; or set "
            "AZURE_STORAGE_CONNECTION_STRING."
        )
    if status is None:
        return f"the certificate of {endpoint} is not trusted. Check the address, the proxy and its certificates."
    match code:
        case "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation":
            return (
                f"{endpoint} does not accept the key or sign-in. Check that it belongs to this account and has not been "
                "renewed, and that this machine's clock is right to some minutes."
            )
        case "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions":
            return (
                f"this identity may sign in to {endpoint}, but lacks a role. Assign it `{_ROLE}` on the account or "
                "container (`az role assignment create`); that takes effect within some ten minutes."
            )
        case "AuthorizationFailure" | "PublicAccessNotPermitted" | "AuthorizationSourceIPMismatch":
            return (
                f"{endpoint} does not let this machine or this key in. Check that the key belongs to this account, what a "
                "signature allows, and the account's network rules (firewall, private endpoint)."
            )
        case "KeyBasedAuthenticationNotPermitted":
            return (
                f"{endpoint} takes no keys. Unset AZURE_STORAGE_CONNECTION_STRING, set AZURE_STORAGE_ACCOUNT and sign in "
                "(`az login`, or Workload Identity in a pod)."
            )
        case "ContainerNotFound":
            return "there is no such container."
        case "BlobImmutableDueToPolicy":
            return (
                "an immutability policy of the container forbids it. A store needs version-level immutability, and "
                "TICKETSMITH_SCRATCH_CONTAINER for checkpoints; see docs/storage.md."
            )
        case "LeaseIdMissing":
            return "somebody holds a lease on it. Break that lease (`az storage blob lease break`)."
    if status in (401, 403):
        return f"{endpoint} refuses it ({status} {code or 'without a reason'}). The role it takes is `{_ROLE}`."
    return f"{endpoint} answered {status} {code or 'without a reason'}."
