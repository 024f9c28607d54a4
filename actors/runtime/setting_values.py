"""How single settings are written: durations, sizes, names and tables by name, from numbers or from texts with a unit.

Owns the reading of one value and its bounds; which settings there are is ``settings``' business.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from actors.domain.outcomes import ExceptionKind

GIBIBYTE = 1024**3
MEBIBYTE = 1024**2
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

DURATION_UNITS_MS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
SIZE_UNITS_BYTES = {"b": 1, "kib": 1024, "mib": MEBIBYTE, "gib": GIBIBYTE, "kb": 10**3, "mb": 10**6, "gb": 10**9}
DURATION_MS_MAX = 36_500 * DAY_MS  # a hundred years: deadlines stay times that can be said
SIZE_BYTES_MAX = 2**60
NUMBER_CHARACTERS_MAX = 40
RAY_OBJECT_STORE_BYTES_MIN = 78_643_200  # Ray refuses less


def parse_duration_ms(value: Any) -> Any:
    """Milliseconds from a number or a text with a unit; anything else is left for the type check to refuse."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?\s*", value)
    if found is None:
        raise ValueError(f'{value!r} is not a duration; write for example "500ms", "90s", "15m", "24h" or "7d"')
    return _whole(found[1], DURATION_UNITS_MS[found[2] or "ms"])


def parse_size_bytes(value: Any) -> Any:
    """Bytes from a number or a text with a unit; anything else is left for the type check to refuse."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    unit = (found[2] or "b").lower() if found else ""
    if found is None or unit not in SIZE_UNITS_BYTES:
        raise ValueError(f'{value!r} is not a size; write for example "64 MiB" or "1 GiB"')
    return _whole(found[1], SIZE_UNITS_BYTES[unit])


def _whole(number: str, unit: int) -> int:
    """A decimal number of units, exactly: not by way of a float, which rounds large ones and cannot hold the largest."""
    if len(number) > NUMBER_CHARACTERS_MAX:
        raise ValueError(f"a number of {len(number)} characters")
    return int(Decimal(number) * unit)


def from_json(text: str) -> Any:
    """JSON text; ValueError, too, for what is nested deeper than Python follows."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_named_tables(value: Any) -> Any:
    """A table by name. "web,b2b" and ["web", "b2b"] stand for tables with nothing set; JSON text is decoded."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("{", "[")):
            value = from_json(text)
        else:
            value = [name.strip() for name in text.split(",") if name.strip()]
    if isinstance(value, list | tuple):
        if not all(isinstance(name, str) for name in value):
            raise ValueError("a list here holds names only")
        return {name: {} for name in value}
    return value


DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0, le=DURATION_MS_MAX)]
SizeBytes = Annotated[int, BeforeValidator(parse_size_bytes), Field(ge=0, le=SIZE_BYTES_MAX)]
Port = Annotated[int, Field(ge=0, le=65535)]
Identifier = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*[^\s\x00-\x1f])?$")
]


def known_exception_kind(name: str) -> str:
    """The name of a kind of exception, as metrics spell it."""
    known = [kind.name.lower() for kind in ExceptionKind]
    if name not in known:
        raise ValueError(f"unknown kind of exception {name!r}; the kinds are {', '.join(known)}")
    return name


ExceptionKindName = Annotated[str, AfterValidator(known_exception_kind)]
