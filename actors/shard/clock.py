"""Shard time: int64 Unix milliseconds that never go back, whatever the wall clock does.

The running shard follows the monotonic clock, slewed to the wall by at most 5 % of what passed; a wall that is more than 5 s
away is a jump: ignored and reported until it comes back or the process restarts. A new owner accepts the wall.
"""

from __future__ import annotations

from collections.abc import Callable

JUMP_MS = 5_000
SLEW_DIVISOR = 20


class ShardClock:
    """Time sources are handed in: ``wall_ms`` Unix milliseconds, ``monotonic_ms`` any origin."""

    def __init__(self, wall_ms: Callable[[], int], monotonic_ms: Callable[[], int], at_least_ms: int = 0) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._last_monotonic = monotonic_ms()
        self._now = max(wall_ms(), at_least_ms)
        self.jumps = 0  # how often the wall was found to have jumped
        self.offset_ms = 0  # wall minus shard time, when last looked at
        self._jumped = False
        self._unslewed = 0  # milliseconds that passed and gave no whole millisecond of slew yet

    def wall_ms(self) -> int:
        """What the wall says, whatever shard time is."""
        return self._wall_ms()

    def not_before(self, time_ms: int) -> None:
        """What is journaled already is not before now."""
        self._now = max(self._now, time_ms)

    def now_ms(self) -> int:
        """Shard time now."""
        monotonic = self._monotonic_ms()
        passed = max(0, monotonic - self._last_monotonic)
        if not passed:
            return self._now
        self._last_monotonic = monotonic
        self.offset_ms = offset = self._wall_ms() - (self._now + passed)
        if abs(offset) > JUMP_MS:
            if not self._jumped:
                self._jumped = True
                self.jumps += 1
            slew = 0
        else:
            self._jumped = False
            most, self._unslewed = divmod(self._unslewed + passed, SLEW_DIVISOR)
            slew = max(-most, min(most, offset))
        self._now += passed + slew
        return self._now
