"""What an endpoint's answer means for the batch and for the endpoint: a table, and how ``Retry-After`` is read.

An answer about the content (400, 422, …) condemns the batch, one about the endpoint (404, 500, no answer) does not: a
receiver that is being deployed, or moved, or whose password changed must not cost events.
"""

from __future__ import annotations

import email.utils
from dataclasses import dataclass
from enum import Enum

from gateway.webhooks.config import REASON_CHARACTERS_MAX, RETRY_AFTER_MS_MAX

CONTENT_REFUSED = frozenset({400, 406, 413, 415, 422})
GONE = 410
TOO_MANY = 429
UNAVAILABLE = 503


class Outcome(Enum):
    """What became of one request; the values are labels of metrics."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # this content will never be accepted
    PAUSED = "paused"  # the endpoint asks for time
    FAILED = "failed"  # the endpoint did not do its work, whatever the content
    GONE = "gone"  # the endpoint wants nothing any more


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason``: for people; ``retry_after_ms``: what the endpoint asked for."""

    outcome: Outcome
    reason: str = ""
    retry_after_ms: int = 0
    status: int = 0


def judge(status: int, retry_after: str, reason: str, now_s: float) -> Verdict:
    """The verdict of an answer with this status, ``Retry-After`` header ("" when there is none) and text."""
    said = f"{status} {printable(reason)}".strip()
    wait_ms = retry_after_ms(retry_after, now_s)
    if 200 <= status < 300:
        return Verdict(Outcome.ACCEPTED, said, status=status)
    if status == GONE:
        return Verdict(Outcome.GONE, said, status=status)
    if status == TOO_MANY or (status == UNAVAILABLE and wait_ms):
        return Verdict(Outcome.PAUSED, said, wait_ms, status)
    if status in CONTENT_REFUSED:
        return Verdict(Outcome.REJECTED, said, status=status)
    if 300 <= status < 400:
        return Verdict(Outcome.FAILED, f"{status}: redirects are not followed", status=status)
    return Verdict(Outcome.FAILED, said, status=status)


def retry_after_ms(header: str, now_s: float) -> int:
    """Milliseconds from a ``Retry-After`` in seconds or as a date; 0 for none, a past one or nonsense; bounded."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]) * 1000, RETRY_AFTER_MS_MAX)
    try:
        at_s = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    return max(0, min(round((at_s - now_s) * 1000), RETRY_AFTER_MS_MAX))


def printable(text: str) -> str:
    """One short line without control characters: it is shown in terminals and exceptions."""
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * REASON_CHARACTERS_MAX])
    return " ".join(line.split())[:REASON_CHARACTERS_MAX]
