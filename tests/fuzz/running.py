"""Runs targets: for a time or a number of inputs, by a seed; keeps and shrinks what fails; replays the corpus.

No coverage guides it: half of the inputs are made anew, half are spoiled copies of made or kept ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import nasty
from tests.fuzz.guard import ErrorLogged, Hang, bounded
from tests.fuzz.registry import Random, Target

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path("fuzz-found")  # in the working directory; not kept by git
POOL_MAX = 200
FRAMES_SHOWN_MAX = 12
SHRINK_RUNS_MAX = 400
SHRINK_SECONDS_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that broke something, and how."""

    target: str
    data: bytes
    error: str
    told: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. ``failure``: the first, at which it stopped."""

    target: str
    executions: int
    seconds: float
    failure: Failure | None


def attempt(target: Target, data: bytes) -> Failure | None:
    """Run one input."""
    try:
        with bounded():
            target.run(data)
    except (Exception, Hang) as error:  # whatever it is, it is what is looked for
        return Failure(target.name, data, _kind(error), traceback.format_exc(limit=-FRAMES_SHOWN_MAX))
    return None


def _kind(error: BaseException) -> str:
    """What makes two failures the same: the type, and the line of the innermost frame."""
    if isinstance(error, ErrorLogged):
        return str(error).split(":", 2)[0]  # where the product raised
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    where = f"{Path(last.filename).name}:{last.lineno}" if last is not None else ""
    return f"{type(error).__name__} at {where}: {str(error)[:200]}"


def kept(target: Target) -> list[tuple[str, bytes]]:
    """The target's corpus: (name, bytes)."""
    return [(path.name, path.read_bytes()) for path in sorted((CORPUS / target.name).glob("*.bin"))]


def run(target: Target, seed: int, *, seconds: float = 0.0, executions: int = 0) -> Outcome:
    """Feed the target until time or number is used up, or something breaks."""
    with quiet():
        return _run(target, seed, seconds, executions)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the product logs of bad input is expected, and not printed."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.removeHandler(silent)


def _run(target: Target, seed: int, seconds: float, executions: int) -> Outcome:
    draw = Random(f"{target.name} {seed}")
    pool = [data for _, data in kept(target)]
    began = time.monotonic()
    done = 0
    while (executions and done < executions) or (seconds and time.monotonic() - began < seconds):
        if not pool or draw.random() < 0.5:
            data = target.make(draw)
            if len(pool) < POOL_MAX:
                pool.append(data)
            else:
                pool[draw.randrange(POOL_MAX)] = data
        else:
            data = target.change(draw, draw.choice(pool))
        failure = attempt(target, data)
        done += 1
        if failure is not None:
            return Outcome(target.name, done, time.monotonic() - began, shrunk(target, failure))
    return Outcome(target.name, done, time.monotonic() - began, None)


def shrunk(target: Target, failure: Failure) -> Failure:
    """A smaller input that fails in the same way, as far as a bounded search finds one."""
    best = failure
    runs = 0
    began = time.monotonic()
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(best.data):
            runs += 1
            if runs > SHRINK_RUNS_MAX or time.monotonic() - began > SHRINK_SECONDS_MAX:
                return best
            found = attempt(target, smaller)
            if found is not None and found.error.split(":")[:2] == best.error.split(":")[:2]:
                best, progress = found, True
                break
    return best


def _smaller(data: bytes) -> list[bytes]:
    """Copies with a part left out: elements of a container, else stretches of bytes."""
    parts = nasty.unpack(data)
    if isinstance(parts, list) and len(parts) > 1 and nasty.pack(parts) == data:
        halves = [parts[: len(parts) // 2], parts[len(parts) // 2 :]]
        return [nasty.pack(half) for half in halves] + [
            nasty.pack(parts[:at] + parts[at + 1 :]) for at in reversed(range(len(parts)))
        ]
    if isinstance(parts, list) and parts:
        return []
    out = []
    size = len(data) // 2
    while size:
        out += [data[:at] + data[at + size :] for at in range(0, len(data), size)]
        size //= 2 if size > 8 else 8
    return out


def keep(failure: Failure, folder: Path) -> Path:
    """Write the input down."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{failure.target}-{hashlib.sha256(failure.data).hexdigest()[:12]}.bin"
    path = folder / name
    path.write_bytes(failure.data)
    return path
