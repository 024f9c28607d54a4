"""What ``verify`` keeps of what is alive in a shard: stock keys, claims, reservations. Plain data and sums, no code of the
domain; the rules over them are ``verify_stock``'s and ``verify_home``'s.

Per live entity a walk needs, its key included, about 400 bytes a stock key, 300 a claim, 400 a reservation with a line
(100 a line more), 200 an id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SELLABLE = 1
SELLING_OPEN = 1


class Claim:
    """One reservation line's claim. ``also``: the same reservation's next line on this stock key, which is rare.

    ``confirmed`` is the reservation's on this stock key and stands at its first line. ``open``: granted − fulfilled −
    released − expired, kept up.
    """

    __slots__ = (
        "also",
        "confirmed",
        "expired",
        "fulfilled",
        "granted",
        "imposed",
        "line_id",
        "open",
        "picked",
        "released",
        "uncovered",
    )

    def __init__(self, line_id: str, granted: int, imposed: int, uncovered: int, confirmed: bool) -> None:  # noqa: FBT001
        self.line_id = line_id
        self.granted = self.open = granted
        self.imposed = imposed
        self.uncovered = uncovered
        self.confirmed = confirmed
        self.fulfilled = self.released = self.expired = self.picked = 0
        self.also: Claim | None = None

    @property
    def adrift(self) -> int:
        """Picked units beyond what is open."""
        return max(0, self.picked - self.open)

    def lines(self) -> list[Claim]:
        """This and the others of the reservation here."""
        found: list[Claim] = [self]
        while (also := found[-1].also) is not None:
            found.append(also)
        return found

    def line(self, line_id: str) -> Claim | None:
        """That line's."""
        claim: Claim | None = self
        while claim is not None and claim.line_id != line_id:
            claim = claim.also
        return claim


class Transfer:
    """One line of a transfer to a stock key. ``final``: nothing more comes; ``exception_id``: about what was lost."""

    __slots__ = ("dispatched", "exception_id", "final", "received")

    def __init__(self, dispatched: int = 0, received: int = 0, final: bool = False, exception_id: str = "") -> None:  # noqa: FBT001, FBT002
        self.dispatched = dispatched
        self.received = received
        self.final = final
        self.exception_id = exception_id

    @property
    def in_transit(self) -> int:
        """Units under way."""
        return 0 if self.final else max(0, self.dispatched - self.received)

    @property
    def lost(self) -> int:
        """Units that will not come."""
        return max(0, self.dispatched - self.received) if self.final else 0


class Stock:
    """One stock key. ``claims``: reservation id → its first line's claim. The sums over claims and adrift are kept up."""

    __slots__ = (
        "adrift",
        "adrift_units",
        "claims",
        "open_units",
        "others",
        "safety",
        "sellable",
        "selling",
        "shortage_id",
        "transfers",
        "version",
    )

    def __init__(self) -> None:
        self.sellable = 0
        self.others: dict[int, int] = {}  # on hand in other dispositions
        self.safety = 0
        self.selling = SELLING_OPEN
        self.version = 1
        self.claims: dict[str, Claim] = {}
        self.adrift: dict[str, int] = {}  # promise → picked units
        self.open_units = 0
        self.adrift_units = 0
        self.shortage_id = ""
        self.transfers: dict[str, Transfer] = {}  # transfer US line → what is known of it here

    @property
    def shortage(self) -> int:
        """Promised units that are missing."""
        return max(0, self.open_units - (self.sellable - self.adrift_units))

    def sum_up(self) -> None:
        """Make the sums anew."""
        claims = [claim for first in self.claims.values() for claim in first.lines()]
        self.open_units = sum(claim.open for claim in claims)
        self.adrift_units = sum(claim.adrift for claim in claims) + sum(max(0, units) for units in self.adrift.values())


class Reservation:
    """What its home says about one reservation."""

    __slots__ = ("channel_id", "expire_ms", "fulfilled", "lines", "open", "state")

    def __init__(self, state: int, channel_id: str, expire_ms: int, lines: Sequence[Sequence[Any]], units: int) -> None:
        self.state = state
        self.channel_id = channel_id
        self.expire_ms = expire_ms
        self.lines = lines
        self.open = units
        self.fulfilled = 0
