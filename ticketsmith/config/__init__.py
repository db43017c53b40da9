"""The recipe: one YAML file, its schema, and errors that name line and mend."""

from ticketsmith.config.load import load_recipe
from ticketsmith.config.schema import Recipe

__all__ = ["Recipe", "load_recipe"]
