"""The doors: commands, thin over the Python API."""
