"""Runs a recipe on a Kubernetes cluster: ``python scripts/submit_job.py --config <recipe> --target <target>``.

The same as ``ticketsmith submit``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a clone that is not installed

if __name__ == "__main__":
    from ticketsmith.cli.cluster import submit
    from ticketsmith.cli.main import enter

    enter(submit)
