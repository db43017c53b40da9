"""Models on runtimes, compared with what they mean, and timed against each other."""
