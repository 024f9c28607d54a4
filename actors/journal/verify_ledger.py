"""``verify``'s books across shards: what a home says against what its claims say, and ids spent twice.

A command's events lie in the records of several shards, which are walked one after the other. What a cause did to a
reservation at one time is a balance of four numbers (units granted, fulfilled, released, expired): claims count up, the
home counts down, and it must be nothing when all shards were walked. What a reserve grants is balanced line by line,
everything else by reservation. Most balances are settled at the end of their own group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from actors.journal.verify_report import VerifyReport, Where, cause_text

UNITS = ("granted", "fulfilled", "released", "expired")
Units = tuple[int, int, int, int]
LineOf = tuple[str, str]  # stock key, line id; ("", ""): all lines of the reservation together
ALL_LINES: LineOf = ("", "")


class Balance:
    """What claims say minus what the home says, and where they said it: the claims' last place in each shard."""

    __slots__ = ("claims_at", "home_at", "local", "units")

    def __init__(self) -> None:
        self.units = [0, 0, 0, 0]
        self.claims_at: dict[int, Where] = {}
        self.home_at: Where | None = None
        self.local = False  # no other shard has to do with it


class Ledger:
    """Balances and spent ids of all shards. ``window_ms``: an id must not be spent twice within it."""

    def __init__(self, report: VerifyReport, window_ms: int) -> None:
        self._report = report
        self._window_ms = window_ms
        self._balances: dict[Any, Balance] = {}
        self._group: set[Any] = set()
        self._spent: dict[
            bytes, tuple[int, int, int, bytes]
        ] = {}  # digest of key → time, shard, record number, content
        self._distrusted: set[int] = set()

    def claims(self, reservation_id: str, line: LineOf, cause: Sequence[Any], where: Where, units: Units) -> None:
        """Claims of a reservation changed by these units."""
        balance = self._balance(reservation_id, line, cause, where)
        balance.claims_at[where.shard] = where
        for index in range(4):
            balance.units[index] += units[index]

    def home(
        self,
        reservation_id: str,
        line: LineOf,
        cause: Sequence[Any],
        where: Where,
        units: Units,
        *,
        local: bool,
    ) -> None:
        """Its home says that they changed by these units. ``local``: all its claims are in the home's own shard."""
        balance = self._balance(reservation_id, line, cause, where)
        balance.local = local
        balance.home_at = where
        for index in range(4):
            balance.units[index] -= units[index]

    def _balance(self, reservation_id: str, line: LineOf, cause: Sequence[Any], where: Where) -> Balance:
        key = (reservation_id, where.time_ms, line, tuple(cause))
        self._group.add(key)
        balance = self._balances.get(key)
        if balance is None:
            balance = self._balances[key] = Balance()
        return balance

    def end_group(self) -> None:
        """Forget what is settled and can get no more: a shard that is yet to be walked might upset what is even now."""
        for key in self._group:
            balance = self._balances[key]
            one_line_told_by_both = key[2] != ALL_LINES and balance.claims_at and balance.home_at is not None
            if not any(balance.units) and (balance.local or one_line_told_by_both):
                del self._balances[key]
        self._group.clear()

    def spend(self, key: str, where: Where, content: bytes = b"") -> str:
        """An id was spent; where it was spent before, empty for the first time.

        ``content``: of a warehouse event. A source that uses an id again for an event of another shard is not at odds
        with anything: its id is known at its stock key's shard, and the other event is another fact.
        """
        digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
        before = self._spent.get(digest)
        if before is None or where.time_ms >= before[0] + self._window_ms:
            self._spent[digest] = (where.time_ms, where.shard, where.record_number, content)
            return ""
        if content and where.shard != before[1] and content != before[3]:
            return self.spend(f"{key}\x1f{where.shard}", where)
        self._spent[digest] = (where.time_ms, where.shard, where.record_number, content)
        return f"shard {before[1]}, record {before[2]}"

    def distrust(self, shard: int) -> None:
        """That shard was not walked to its end: balances it takes part in cannot be settled."""
        self._distrusted.add(shard)

    def settle(self, whole_from_ms: int) -> None:
        """All shards were walked, and all of them wholly for times after ``whole_from_ms``: nothing may be left."""
        if self._distrusted:
            return
        for (reservation_id, time_ms, line, cause), balance in self._balances.items():
            if time_ms > whole_from_ms and any(balance.units):
                self._report_unsettled(reservation_id, line, cause, balance)

    def _report_unsettled(self, reservation_id: str, line: LineOf, cause: Sequence[Any], balance: Balance) -> None:
        left = ", ".join(f"{units:+} {name}" for name, units in zip(UNITS, balance.units, strict=True) if units)
        about = f"line {line[1]!r}: " if line != ALL_LINES else ""
        claims = list(balance.claims_at.values())
        where = claims[0] if claims else balance.home_at
        assert where is not None, "a balance that nobody made"
        if balance.home_at is None:
            text = f"its claims changed here and its home does not say so: {left}"
        elif not claims:
            text = f"its home says so here and no claim does: {left} by its claims"
        else:
            text = f"its claims say {left} against its home in {_place(balance.home_at)}"
        if len(claims) > 1:
            text += "; other claims changed in " + "; ".join(_place(other) for other in claims[1:])
        self._report.add("units match", where, reservation_id, about + text, cause_text(cause))


def _place(where: Where) -> str:
    return f"shard {where.shard}, record {where.record_number}, sequence {where.sequence}"
