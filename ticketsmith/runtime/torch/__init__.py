"""Models of PyTorch: read through ``torch.export``, watched, and probed for what mixes samples. Needs torch."""
