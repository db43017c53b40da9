"""Spec and store in, sealed run out. The training loop is ``ticketsmith.training.loop.train``."""
