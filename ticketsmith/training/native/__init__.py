"""Training by the kernel library, of networks that it follows as a whole."""
