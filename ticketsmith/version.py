"""The version and the commit, in a file that imports nothing."""

__version__ = "0.1.0"

COMMIT: str | None = None
"""The commit that an installed package was built from: a build writes it here. A clone asks git instead."""
