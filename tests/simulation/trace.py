"""What one history leaves: a line for everything that happened, an operation for every attempt, and a digest of both.

Two runs of one seed must leave the same digest; ``text`` is what people read to see what a seed did. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from actors.domain.answers import ERROR, OK
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, RefusalReason
from tests.simulation.history import Operation
from tests.simulation.history_frames import ASKED, answered, attempted

TIMELINE = "t1"
UNSPOKEN = frozenset((int(Verb.GET_HOST_STATUS),))  # answers with process ids and real durations
UNTOLD = "unknown"


class Attempt:
    """One item sent once. ``operation`` is None for verbs that histories do not hold (lists, explanations, status)."""

    __slots__ = ("client", "invoked_s", "item", "operation", "reply")

    def __init__(self, client: str, item: Sequence[Any], operation: Operation | None, invoked_s: float) -> None:
        self.client = client
        self.item = item
        self.operation = operation
        self.invoked_s = invoked_s
        self.reply: Sequence[Any] | None = None


class Recording:
    """Lines are (time, who or what, …)."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        self._time_s = time_s
        self.lines: list[tuple[Any, ...]] = []
        self.attempts: list[Attempt] = []
        self.doubles = False  # frames may be doubled: then a copy of what was answered "not done" may still come

    def note(self, *words: Any) -> None:
        self.lines.append((self._time_s(), *words))

    def begin(self, client: str, item: Sequence[Any]) -> Attempt:
        """Before it is sent."""
        now_s = self._time_s()
        operation = attempted(client, item, now_s) if item[0] in ASKED else None
        attempt = Attempt(client, item, operation, now_s)
        self.attempts.append(attempt)
        self.lines.append((now_s, client, "asks", attempt))
        return attempt

    def end(self, attempt: Attempt, reply: Sequence[Any] | None) -> None:
        """After it: ``reply`` None when none came."""
        attempt.reply = reply
        now_s = self._time_s()
        self.lines.append((now_s, attempt.client, "hears", attempt))
        operation = attempt.operation
        if operation is None or reply is None:
            return
        answered(operation, reply, TIMELINE, now_s)
        if reply[0] == ERROR and (self.doubles or (len(reply) > 4 and reply[4] == UNTOLD)):
            operation.status = UNTOLD

    def operations(self) -> list[Operation]:
        return [attempt.operation for attempt in self.attempts if attempt.operation is not None]

    def digest(self) -> str:
        """Of everything that happened."""
        digest = blake2b(digest_size=12)
        for line in self.lines:
            digest.update(repr(_plain(line)).encode())
        return digest.hexdigest()

    def text(self) -> list[str]:
        """A line each, for people."""
        return [_spoken(line) for line in self.lines]


def _plain(line: tuple[Any, ...]) -> tuple[Any, ...]:
    attempt = line[-1]
    if not isinstance(attempt, Attempt):
        return line
    if line[2] == "asks":
        return (*line[:-1], attempt.item)
    reply = attempt.reply
    return (*line[:-1], reply if reply is None or attempt.item[0] not in UNSPOKEN else reply[0])


def _spoken(line: tuple[Any, ...]) -> str:
    time_s, *words = line
    attempt = words[-1]
    if isinstance(attempt, Attempt):
        verb = Verb(attempt.item[0]).name.lower()
        if words[1] == "asks":
            words[-1] = f"{verb} of shard {attempt.item[1]}: {_fields(attempt.item[5])}"
        else:
            words[-1] = f"{verb}: {_reply(attempt.reply, attempt.item[0])}"
    return f"{time_s:10.4f}  " + "  ".join(str(word) for word in words)


def _fields(body: Sequence[Any]) -> str:
    return " ".join(
        value.hex()[:8] if isinstance(value, bytes) else repr(value)
        for value in body
        if value not in ("", [], 0, False)
    ).replace("\\x1f", "/")


def _reply(reply: Sequence[Any] | None, verb: int) -> str:
    if reply is None:
        return "nothing"
    if reply[0] == ERROR:
        return f"error {ErrorReason(reply[1]).name} {' '.join(str(word) for word in reply[2:])}"
    again = " (again)" if reply[1] else ""
    if reply[0] == OK:
        return f"ok{again} {'…' if verb in UNSPOKEN else _fields(reply[2])}"
    return f"refused{again} {RefusalReason(reply[2][0]).name} {_fields(reply[2][1:])}"
