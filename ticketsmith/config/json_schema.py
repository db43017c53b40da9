"""JSON Schemas of recipes and targets, so that editors complete and check them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ticketsmith.config.schema import Recipe
from ticketsmith.config.target import Target


def recipe_schema() -> dict[str, Any]:
    """That of recipes, as plain data."""
    return _schema(Recipe, "TicketSmith recipe")


def target_schema() -> dict[str, Any]:
    """That of targets, as plain data."""
    return _schema(Target, "TicketSmith target")


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
