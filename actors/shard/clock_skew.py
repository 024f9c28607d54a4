"""How far this machine's clock is from the journal's and from those of other hosts: measured, shown, warned of.

Decides nothing: shard time never goes back whatever clocks say (``clock``). But a shard that changes its owner takes the
new owner's wall, so a skew between two machines is how much a hold's life may jump when it moves from one to the other.
Positive: this clock is ahead.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

log = logging.getLogger(__name__)

SKEW_WARNED_MS = 250  # a tenth of the shortest grace a hold gets, and more than what NTP leaves
SKEW_FORGIVEN_MS = 200
SAMPLES_KEPT = 8
JOURNAL = "journal"


class Sample(NamedTuple):
    """One measurement: half the round trip is what it may be wrong by."""

    error_ms: float
    skew_ms: float


class ClockSkew:
    """What is known now, by the name of the other clock."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_KEPT)
        self._warned: set[str] = set()

    def note_journal(self, asked_ms: float, journal_ms: int, answered_ms: float) -> None:
        """The journal's clock was asked at ``asked_ms`` of ours and its answer came at ``answered_ms``.

        Of the last few measurements the one with the shortest round trip is believed.
        """
        middle_ms = (asked_ms + answered_ms) / 2
        self._samples.append(Sample(abs(answered_ms - asked_ms) / 2, middle_ms - journal_ms))
        best = min(self._samples)
        self.note(JOURNAL, round(best.skew_ms), best.error_ms)

    def note(self, name: str, skew_ms: int, error_ms: float = 0.0) -> None:
        """This clock less another's. Warns once when it is surely too far, and once when it is well again."""
        self.known[name] = skew_ms
        surely_ms = abs(skew_ms) - error_ms
        if surely_ms > SKEW_WARNED_MS and name not in self._warned:
            self._warned.add(name)
            log.warning(
                "this machine's clock is %d ms %s that of %s: holds here end so much too %s; look at the time "
                "synchronization of both machines",
                abs(skew_ms),
                "ahead of" if skew_ms > 0 else "behind",
                name,
                "early" if skew_ms > 0 else "late",
                extra={"fields": {"against": name, "clock_skew_ms": skew_ms}},
            )
        elif surely_ms < SKEW_FORGIVEN_MS and name in self._warned:
            self._warned.discard(name)
            log.warning("this machine's clock and that of %s agree again: %d ms", name, skew_ms)

    def forget(self, name: str) -> None:
        """That clock is gone."""
        self.known.pop(name, None)
        self._warned.discard(name)
