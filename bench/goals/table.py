"""The table of goals as data: what was wanted, what was found, with spread, and whether it is reached. Saved as JSON.

Owns the format; ``catalog`` fills it, ``showing`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.results import Result, ResultError, middle

FORMAT = 1
REACHED, MISSED, UNMEASURED = "reached", "not reached", "not measured"


class Row(BaseModel):
    """One figure of a goal. ``value`` is what is judged, with its least and greatest over ``count`` repetitions: a ratio (unit
    ``×``), or a figure by itself. ``figure`` and ``comparison`` say what it was made of.
    """

    model_config = ConfigDict(extra="forbid")

    what: str
    figure: str
    comparison: str = ""
    value: float
    low: float
    high: float
    count: int
    unit: str
    wanted: float
    direction: Literal["≥", "≤"]
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the median repetition is on the right side."""
        return self.value >= self.wanted if self.direction == "≥" else self.value <= self.wanted

    @property
    def value_text(self) -> str:
        """The value with its spread."""
        spread = f" ({amount(self.low)} … {amount(self.high)})" if self.count > 1 else ""
        return f"{amount(self.value)} {self.unit}{spread}"

    @property
    def wanted_text(self) -> str:
        """What it should be."""
        return f"{self.direction} {amount(self.wanted)} {self.unit}"


class Goal(BaseModel):
    """A goal and what was found of it. Without rows it was not measured; ``note`` then says why, else how near and why."""

    model_config = ConfigDict(extra="forbid")

    number: int
    work: str
    rows: list[Row] = Field(default_factory=list)
    note: str = ""

    @property
    def state(self) -> str:
        """Every row must be reached."""
        if not self.rows:
            return UNMEASURED
        return REACHED if all(row.reached for row in self.rows) else MISSED


class Figures(BaseModel):
    """What was measured without a service of its own: values by name, one a repetition."""

    model_config = ConfigDict(extra="forbid")

    name: str
    values: dict[str, list[float]]
    notes: list[str] = Field(default_factory=list)


class GoalTable(BaseModel):
    """A file. ``result``: the scenarios behind the figures, whole; ``figures``: what was measured in a process."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    quick: bool
    goals: list[Goal]
    figures: list[Figures] = Field(default_factory=list)
    result: Result

    @property
    def summary(self) -> str:
        """How many of each."""
        states = [goal.state for goal in self.goals]
        return ", ".join(f"{states.count(state)} {state}" for state in (REACHED, MISSED, UNMEASURED))


def row(  # noqa: PLR0913  as many as it has
    what: str,
    values: Sequence[float],
    *,
    figure: str,
    unit: str,
    at_least: float | None = None,
    at_most: float | None = None,
    comparison: str = "",
    note: str = "",
) -> list[Row]:
    """A row of these repetitions; none of no repetition."""
    if not values:
        return []
    wanted, direction = (at_least, "≥") if at_least is not None else (at_most, "≤")
    assert wanted is not None, "a goal wants something"
    return [
        Row(
            what=what,
            figure=figure,
            comparison=comparison,
            value=middle(list(values)),
            low=min(values),
            high=max(values),
            count=len(values),
            unit=unit,
            wanted=wanted,
            direction=direction,  # type: ignore[arg-type]
            note=note,
        )
    ]


def amount(value: float) -> str:
    """A number as people read it: three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def save_table(table: GoalTable, path: Path) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(table.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_table(path: Path) -> GoalTable:
    """Read it; ResultError says what is wrong with the file."""
    try:
        table = GoalTable.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise ResultError(
            f"{path}: not a table of `python -m bench goals`: {' '.join(str(error).splitlines()[:3])}"
        ) from None
    if table.format != FORMAT:
        raise ResultError(f"{path}: format {table.format}; this benchmark reads {FORMAT}")
    return table
