"""Models of PyTorch: read through ``torch.export``, trace, and probed for what mixes samples. Needs torch."""
