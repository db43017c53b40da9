"""What the tests of evidence share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def denormals() -> None:
    """Training in the same process may have switched them off, which hypothesis does not like."""
    import torch

    torch.set_flush_denormal(False)
