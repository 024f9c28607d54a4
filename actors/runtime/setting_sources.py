"""Where settings come from: the lines of the file and the variables of the environment; and what is said of a name that
nobody knows or a value that cannot be.

Owns the spelling of names: ``section.name`` for people, ``STOCKADE_SECTION_NAME`` in the environment. The settings
themselves are handed in as a model; which values are right is its business.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from actors.runtime.setting_values import from_json

__all__ = [
    "ENVIRONMENT_PREFIX",
    "explain",
    "merged",
    "names_of",
    "origins_in_file",
    "parts_of",
    "read_variables",
    "sections_of",
    "unknown_variables",
    "variable_of",
]

ENVIRONMENT_PREFIX = "STOCKADE_"
NOT_SETTINGS = frozenset(
    {
        "STOCKADE_CONFIG",  # the file
        "STOCKADE_TARGET", "STOCKADE_CHANNEL", "STOCKADE_TOKEN",  # of the commands that call a service
        "STOCKADE_NODE_OF", "STOCKADE_NODE_GENERATION",  # marks of a node's processes
    }
)  # fmt: skip
FROM_KUBERNETES = re.compile(r"STOCKADE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
STATEMENT_LINES_MAX = 2_000  # a longer value has no line, only a file
LIKENESS_MIN = 0.5


# --- names -----------------------------------------------------------------------------------------------------------------


def sections_of(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Fields that are tables with fields of their own: ``journal`` has ``journal.url``."""
    found = {name: inner_model(field.annotation) for name, field in model.model_fields.items()}
    return {
        name: inner
        for name, inner in found.items()
        if inner is not None and is_section(model.model_fields[name].annotation)
    }


def is_section(annotation: Any) -> bool:
    """A model, or one that may be absent; not a list or a table of them."""
    options = [annotation]
    if get_origin(annotation) in (Union, UnionType):
        options = [one for one in get_args(annotation) if one is not type(None)]
    return len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], BaseModel)


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``list[Model]``, ``dict[str, Model]``, ``Model | None``; None when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := inner_model(one)) is not None), None)


def names_of(model: type[BaseModel]) -> list[str]:
    """Every setting's name, sections taken apart, in the model's order."""
    sections = sections_of(model)
    return [
        name
        for field in model.model_fields
        for name in ([f"{field}.{part}" for part in sections[field].model_fields] if field in sections else [field])
    ]


def variable_of(name: str) -> str:
    """The environment's name of a setting."""
    return ENVIRONMENT_PREFIX + name.upper().replace(".", "_")


def merged(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One table out of several, later ones first in precedence; names may have dots, sections are joined."""
    values: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            section, _, part = name.partition(".")
            there = values.get(section)
            given = {part: value} if part else value
            values[section] = (
                {**there, **given} if isinstance(there, dict) and isinstance(given, dict) and part else given
            )
    return values


def parts_of(values: Mapping[str, Any], name: str) -> list[str]:
    """A name and, when its value is a table, those of the table: what one source said."""
    value = values[name]
    return [name, *(f"{name}.{part}" for part in value)] if isinstance(value, dict) else [name]


# --- the environment -------------------------------------------------------------------------------------------------------


def read_variables(
    environment: Mapping[str, str], names: Collection[str], json_names: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Settings found in the environment by name, decoded; and what is wrong, a line each. Empty variables are absent."""
    values: dict[str, Any] = {}
    problems = []
    for name in names:
        raw = environment.get(variable_of(name))
        if not raw:
            continue
        try:
            values[name] = from_json(raw) if name in json_names else raw
        except ValueError:
            problems.append(f"{name} (from environment {variable_of(name)}): not valid JSON")
    return values, problems


def unknown_variables(environment: Mapping[str, str], names: Collection[str]) -> Iterator[str]:
    """A line for every variable of ours that is no setting: a misspelt one must not be as good as none."""
    known = sorted(map(variable_of, names))
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_SETTINGS or variable in known:
            continue
        if not environment[variable]:
            continue
        if FROM_KUBERNETES.fullmatch(variable):
            yield (
                f"{variable} (from environment): there is no such setting; Kubernetes makes it for a Service of that name: "
                "write enableServiceLinks: false into the pod"
            )
            continue
        yield f"{variable} (from environment): there is no such setting{nearest(variable, known)}"


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say of a name nobody knows."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=LIKENESS_MIN)
    return f"; did you mean {prefix}{near[0]}?" if near else "; `stockade config` lists them"


# --- the file --------------------------------------------------------------------------------------------------------------


def origins_in_file(text: str, path: Path) -> dict[str, str]:
    """``file:line`` of every key of a TOML text that is valid as a whole, by dotted path (list positions left out).

    A table's first line stands for the table. Where a line cannot be told, the key is absent.
    """
    lines = text.splitlines(keepends=True)
    header: tuple[str, ...] = ()
    found: dict[str, str] = {}
    number = 0
    while number < len(lines):
        statement, length = statement_at(lines, number)
        keys = list(key_paths(statement))
        if statement and lines[number].lstrip().startswith("["):
            header = keys[0] if keys else ()
            keys = [()]
        for key in keys if statement else []:
            full = header + key
            for depth in range(1, len(full) + 1):
                found.setdefault(".".join(full[:depth]), f"{path}:{number + 1}")
        number += length
    return found


def statement_at(lines: list[str], number: int) -> tuple[dict[str, Any], int]:
    """The statement that begins at a line, parsed, and how many lines it takes; ({}, 1) when no end is found."""
    text = ""
    for length, line in enumerate(lines[number : number + STATEMENT_LINES_MAX], 1):
        text += line
        if length > 1 and not line.rstrip().endswith(("]", "}", '"""', "'''")) and "#" not in line:
            continue  # nothing that takes several lines ends here
        try:
            return tomllib.loads(text), length
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
    return {}, 1


def key_paths(table: Any) -> Iterator[tuple[str, ...]]:
    """Paths of the leaves of nested tables; of a header's table the path that it names."""
    if isinstance(table, list):
        table = table[0] if table else {}
    if not isinstance(table, dict):
        return
    for name, value in table.items():
        deeper = [(name, *path) for path in key_paths(value)]
        yield from deeper or [(name,)]


# --- errors ----------------------------------------------------------------------------------------------------------------


def explain(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str]) -> list[str]:
    """One line a fault: which setting, from where, what is wrong and what would be right. Values are not quoted."""
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
        where = ".".join(path) or "settings"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "there is no such setting" + nearest_in(model, path)
        lines.append(f"{where} (from {origin_of(path, origins)}): {message}")
    return lines


def origin_of(path: list[str], origins: Mapping[str, str]) -> str:
    """Where the longest known part of a path came from."""
    names = [part for part in path if not part.isdecimal()]
    for length in range(len(names), 0, -1):
        origin = origins.get(".".join(names[:length]))
        if origin is not None:
            return origin
    if path:
        below = [origin for name, origin in origins.items() if name.startswith(f"{path[0]}.") and origin != "default"]
        return ", ".join(dict.fromkeys(below)) or "the file or command line"
    return ", ".join(sorted(set(origins.values()) - {"default"})) or "defaults"


def nearest_in(model: type[BaseModel], path: list[str]) -> str:
    """The name nearest to the last of ``path`` among those that may stand there."""
    within: type[BaseModel] | None = model
    for part in path[:-1]:
        if within is not None and part in within.model_fields:
            within = inner_model(within.model_fields[part].annotation)
    if within is None:
        return ""
    prefix = ".".join([*path[:-1], ""])
    known = list(within.model_fields)
    if within is model:
        known += names_of(model)
    return nearest(path[-1], known, prefix)
