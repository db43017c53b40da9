"""What a recipe may say of a search for the sweet spot."""

from __future__ import annotations

from pydantic import Field, model_validator

from ticketsmith.spec import Frozen


class SearchBudget(Frozen):
    """What a search may spend, in one of these terms. When it is spent, the answer is the interval that was reached."""

    runs: int | None = Field(None, ge=1, description="Runs in all, dense ones and rewind points among them.")
    hours: float | None = Field(None, gt=0, description="Core-hours, as the costs in the store have them.")
    money: float | None = Field(
        None, gt=0, description="Money, by the price of the target or of `--machine`, idle nodes included."
    )

    @model_validator(mode="after")
    def _one(self) -> SearchBudget:
        if sum(value is not None for value in (self.runs, self.hours, self.money)) != 1:
            raise ValueError("give `runs`, `hours` or `money`, one of the three")
        return self


class Search(Frozen):
    """Looks for the sweet spot level by level, instead of training every level, replicate and control."""

    coarse: int | None = Field(
        None,
        ge=1,
        description="Rounds of pruning that each of its first levels merges into one; 1 merges none. By default a quarter of "
        "`pruning.levels`.",
    )
    budget: SearchBudget | None = Field(None, description="What it may spend; without one, what it takes.")

    def step(self, levels: int) -> int:
        """Rounds that a coarse level merges, of so many levels."""
        return self.coarse or max(1, round(levels / 4))
