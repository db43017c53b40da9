"""A store on Azure Blob. Imported only when an ``az://`` address is opened: the SDK takes its time."""

from __future__ import annotations

from ticketsmith.errors import RecipeError
from ticketsmith.store.address import BlobAddress
from ticketsmith.store.contract import Store


def open_blob_store(address: str) -> Store:
    """The store at ``az://<container>/<prefix>``; nothing is sent yet. Raises RecipeError when it cannot be signed in."""
    place = BlobAddress.parse(address)
    try:
        from ticketsmith.store.blob.sign_in import scratch_container, sign_in
        from ticketsmith.store.blob.store import BlobStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "azure":
            raise
        raise RecipeError(
            f"{place}: a store on Azure needs packages that are not installed: pip install 'ticketsmith[azure]'"
        ) from None
    return BlobStore(place, sign_in(), scratch_container())
