"""``verify``'s books across shards: what a home says against what its claims say, and ids spent twice.

A command's events lie in the records of several shards, which are walked one after the other. What a cause did to a
reservation at one time is a balance of four numbers (units granted, fulfilled, released, expired): claims count up, the
home counts down, and it must be nothing when all shards were walked. Most balances are settled at the end of their own
group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from actors.journal.verify_report import VerifyReport, Where, cause_text

UNITS = ("granted", "fulfilled", "released", "expired")
Units = tuple[int, int, int, int]


class Balance:
    """What claims say minus what the home says, and where each of them last said it."""

    __slots__ = ("claims_at", "home_at", "units")

    def __init__(self) -> None:
        self.units = [0, 0, 0, 0]
        self.claims_at: Where | None = None
        self.home_at: Where | None = None


class Ledger:
    """Balances and spent ids of all shards. ``window_ms``: an id must not be spent twice within it."""

    def __init__(self, report: VerifyReport, window_ms: int) -> None:
        self._report = report
        self._window_ms = window_ms
        self._balances: dict[Any, Balance] = {}
        self._group: set[Any] = set()
        self._spent: dict[bytes, tuple[int, int, int]] = {}  # digest of key → time, shard, record number
        self._distrusted: set[int] = set()

    def claims(self, reservation_id: str, cause: Sequence[Any], where: Where, units: Units) -> None:
        """Claims of a reservation changed by these units."""
        balance = self._balance(reservation_id, cause, where)
        balance.claims_at = where
        for index in range(4):
            balance.units[index] += units[index]

    def home(self, reservation_id: str, cause: Sequence[Any], where: Where, units: Units) -> None:
        """Its home says that they changed by these units."""
        balance = self._balance(reservation_id, cause, where)
        balance.home_at = where
        for index in range(4):
            balance.units[index] -= units[index]

    def _balance(self, reservation_id: str, cause: Sequence[Any], where: Where) -> Balance:
        key = (reservation_id, where.time_ms, tuple(cause))
        self._group.add(key)
        balance = self._balances.get(key)
        if balance is None:
            balance = self._balances[key] = Balance()
        return balance

    def end_group(self) -> None:
        """Forget what the group settled."""
        for key in self._group:
            balance = self._balances.get(key)
            if balance is not None and not any(balance.units):
                del self._balances[key]
        self._group.clear()

    def spend(self, key: str, where: Where) -> str:
        """An id was spent; where it was spent before, empty for the first time."""
        digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
        before = self._spent.get(digest)
        self._spent[digest] = (where.time_ms, where.shard, where.record_number)
        if before is None or where.time_ms >= before[0] + self._window_ms:
            return ""
        return f"shard {before[1]}, record {before[2]}"

    def distrust(self, shard: int) -> None:
        """That shard was not walked to its end: balances it takes part in cannot be settled."""
        self._distrusted.add(shard)

    def settle(self, whole_from_ms: int) -> None:
        """All shards were walked, and all of them wholly for times after ``whole_from_ms``: nothing may be left."""
        for (reservation_id, time_ms, cause), balance in self._balances.items():
            if time_ms <= whole_from_ms or not any(balance.units):
                continue
            where = balance.claims_at or balance.home_at
            if where is None or self._distrusted:
                continue
            left = ", ".join(f"{units:+} {name}" for name, units in zip(UNITS, balance.units, strict=True) if units)
            home, claims = balance.home_at, balance.claims_at
            if home is None:
                text = f"its claims changed here and its home does not say so: {left}"
            elif claims is None:
                text = f"its home says so here and no claim does: {left} too few"
            else:
                text = (
                    f"its claims say {left} more than its home does in shard {home.shard}, record "
                    f"{home.record_number}, "
                    f"sequence {home.sequence}"
                )
            self._report.add("units match", where, reservation_id, text, cause_text(cause))
