"""Data sets: loading them by name, telling what their content depends on, listing, fetching and checking them."""

from ticketsmith.data.catalogue import Entry, catalogue, fetch, verify
from ticketsmith.data.loading import BUILTINS, fingerprint, identity, load, load_text, rules

__all__ = ["BUILTINS", "Entry", "catalogue", "fetch", "fingerprint", "identity", "load", "load_text", "rules", "verify"]
