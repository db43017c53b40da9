"""Patterns that exporters leave, each found and replaced by a pass of its own. Every pass keeps the function of the graph."""
