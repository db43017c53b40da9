"""Random streams: every kind of chance in a run has its own, derived from the replicate's seed by name.

Streams are counter-based, not stateful: the order of epoch 7 depends on ``(seed, "order", 7)`` and on nothing that was
drawn before. So a control sees the same batches as its ticket, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of replicate ``seed``; stable over versions and machines."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
