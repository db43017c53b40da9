"""Masks, criteria and the arithmetic of rounds: pure functions on tensors."""
