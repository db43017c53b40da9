"""Trained models at work: runtimes, and the benchmark that times them against each other."""
