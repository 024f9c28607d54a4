"""What a fuzz target is, and the list of all of them.

A target's ``run`` raises nothing for any bytes unless something is wrong: it catches what the edge documents, and asserts what
must hold of whatever was accepted. Its ``make`` writes an input that gets far into the edge, its ``change`` spoils one.
Inputs describe themselves, so that a kept one means the same after its maker changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

Random = random.Random
Run = Callable[[bytes], None]
Make = Callable[[Random], bytes]
Change = Callable[[Random, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """One edge. ``what`` says what it feeds and what must hold."""

    name: str
    what: str
    run: Run
    make: Make
    change: Change


TARGETS: dict[str, Target] = {}


def target(name: str, what: str, make: Make, change: Change) -> Callable[[Run], Run]:
    """Put a function into the registry under a name."""

    def register(run: Run) -> Run:
        assert name not in TARGETS, name
        TARGETS[name] = Target(name, what, run, make, change)
        return run

    return register
