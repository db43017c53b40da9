"""What a process shows on a terminal."""

from __future__ import annotations

import os
import time


def read_all(leader: int, seconds: float = 60.0) -> str:
    """All that is shown on the terminal of ``leader`` until nobody writes there any more, or the time is over."""
    seen, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    return seen.decode(errors="replace")
