"""Scenario files: what is asked, of how many stock keys, and how the load is shaped. Read from TOML, checked, explained.

Owns the words of ``bench/scenarios/*.toml``; running them is ``bench.running``'s. A fault in a file names the file, the
field and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCENARIOS = Path(__file__).parent / "scenarios"

BATCH_MAX = 1_000  # what one call of the contract may hold
LINES_PER_CALL_MAX = 4_000  # below the bytes of a frame between gateway and host
KEYS_MAX = 5_000_000


class ScenarioError(Exception):
    """A scenario that does not exist or cannot be; says which file, which field and what would help."""


class Load(BaseModel):
    """How the calls come.

    ``closed``: ``in_flight`` callers who wait for each other. ``open``: ``rate_per_second`` calls a second whatever the
    service does, or ``share_of_peak`` of what a closed loop of ``in_flight`` reaches first. ``search``: from ``in_flight``
    doubling to ``in_flight_max`` until it does no more, then repetitions at the best.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["closed", "open", "search"] = "closed"
    in_flight: int = Field(default=128, ge=1, le=20_000)
    in_flight_max: int = Field(default=1_024, ge=1, le=20_000)
    rate_per_second: float | None = Field(default=None, gt=0)
    share_of_peak: float | None = Field(default=None, gt=0, le=2)
    arrivals: Literal["poisson", "even"] = "poisson"
    seconds: float = Field(default=4.0, gt=0, le=24 * 3600)
    warm_up_seconds: float = Field(default=1.0, ge=0, le=600)
    repetitions: int = Field(default=3, ge=1, le=100)
    factors: tuple[float, ...] = Field(default=(1,), min_length=1, max_length=16)
    until_sold_out: bool = False
    kill_host_at_share: float | None = Field(default=None, gt=0, lt=1)
    lag_ms_p99_max: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Load:
        if self.mode == "open" and (self.rate_per_second is None) == (self.share_of_peak is None):
            raise ValueError("an open loop needs either rate_per_second or share_of_peak")
        if self.mode != "open" and (self.rate_per_second is not None or self.share_of_peak is not None):
            raise ValueError(f"rate_per_second and share_of_peak belong to mode = 'open', not {self.mode!r}")
        if self.mode == "search" and self.in_flight_max < self.in_flight:
            raise ValueError("in_flight_max must not be below in_flight")
        if self.mode != "closed" and (self.until_sold_out or self.factors != (1,)):
            raise ValueError("until_sold_out and factors belong to mode = 'closed'")
        if min(self.factors) <= 0:
            raise ValueError("every factor must be above 0")
        return self


class Scenario(BaseModel):
    """One file. ``work``: what a call asks; ``batch``: orders, stock keys or events a call (1: the single method);
    ``lines``: of an order, each another stock key; ``short``: part of the short set; ``noop``: alternate with the no-op.
    ``sequenced``: events have numbers of their source; ``streamed``: they go by StreamEvents, ``batch`` in a message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    title: str = Field(min_length=1, max_length=80)
    about: str = Field(min_length=1)
    work: Literal["reserve", "availability", "ingest", "mixed"]
    keys: int = Field(default=1, ge=1, le=KEYS_MAX)
    units_per_key: int = Field(default=10**9, ge=1, le=10**9)
    batch: int = Field(default=1, ge=1, le=BATCH_MAX)
    lines: int = Field(default=1, ge=1, le=2_000)
    short: bool = False
    noop: bool = False
    restock: bool = False
    sequenced: bool = False
    streamed: bool = False
    load: Load = Field(default_factory=lambda: Load())

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        if self.lines > self.keys:
            raise ValueError(f"orders of {self.lines} different stock keys need keys ≥ {self.lines}")
        if self.lines * self.batch > LINES_PER_CALL_MAX:
            raise ValueError(f"lines × batch must not exceed {LINES_PER_CALL_MAX} lines a call")
        if self.noop and self.work != "reserve":
            raise ValueError("the no-op answers reserves only")
        if self.lines > 1 and self.work != "reserve":
            raise ValueError("lines belong to work = 'reserve'")
        if (self.sequenced or self.streamed) and self.work != "ingest":
            raise ValueError("sequenced and streamed belong to work = 'ingest'")
        if self.streamed and self.load.mode != "closed":
            raise ValueError("streams are a closed loop")
        if self.load.until_sold_out and not (self.restock and self.work == "reserve"):
            raise ValueError("until_sold_out needs work = 'reserve' and restock = true")
        return self

    @property
    def unit(self) -> str:
        """What is counted."""
        return {"reserve": "claims", "availability": "reads", "ingest": "events", "mixed": "commands"}[self.work]

    def adapted(self, **changes: Any) -> Scenario:
        """The same with other values of ``load`` or of its own; None changes nothing."""
        given = {name: value for name, value in changes.items() if value is not None}
        load = {name: value for name, value in given.items() if name in Load.model_fields}
        own = {name: value for name, value in given.items() if name not in load}
        try:
            return Scenario.model_validate({**self.model_dump(), **own, "load": {**self.load.model_dump(), **load}})
        except ValidationError as error:
            raise ScenarioError(explain(self.name, error)) from None


def read_scenario(path: Path) -> Scenario:
    """One scenario file; ScenarioError says what is wrong with it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    try:
        return Scenario.model_validate({**values, "name": path.stem})
    except ValidationError as error:
        raise ScenarioError(explain(str(path), error)) from None


def explain(where: str, error: ValidationError) -> str:
    """One line a fault: the field, what is wrong, and the nearest known field for one that does not exist."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in fault["loc"]) or "the scenario"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            known = Load.model_fields if fault["loc"][0] == "load" else Scenario.model_fields
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
            message = "there is no such field" + (f"; did you mean {near[0]}?" if near else "")
        lines.append(f"{where}: {field}: {message}")
    return "\n".join(lines)


def all_scenarios(directory: Path = SCENARIOS) -> list[Scenario]:
    """Every scenario that comes with the benchmark, those of the short set first."""
    found = [read_scenario(path) for path in directory.glob("*.toml")]
    return sorted(found, key=lambda one: (not one.short, one.name))


def chosen(names: Iterable[str], directory: Path = SCENARIOS) -> list[Scenario]:
    """Scenarios by name or by path of a TOML file; none named: the short set; ``all``: every one."""
    names = list(names)
    known = {one.name: one for one in all_scenarios(directory)}
    if not names:
        return [one for one in known.values() if one.short]
    if names == ["all"]:
        return list(known.values())
    picked = []
    for name in names:
        if name.endswith(".toml"):
            picked.append(read_scenario(Path(name)))
        elif name in known:
            picked.append(known[name])
        else:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`python -m bench list` shows them"
            raise ScenarioError(f"there is no scenario {name!r}; {hint}")
    return picked
