"""The recipe's JSON Schema, so that editors complete and check recipes."""

from __future__ import annotations

from typing import Any

from ticketsmith.config.schema import Recipe


def recipe_schema() -> dict[str, Any]:
    """The schema as plain data."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "TicketSmith recipe"
    return schema
