"""Training by the kernel library: networks that it follows as a whole, and single layers of those that it does not."""
