"""Gates, statistics, the sweet spot, cost: pure functions on results. Reads no file, imports no torch."""
