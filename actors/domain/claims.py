"""Claims and reservations: what there are millions of, made small. Data, no rules; part of ``state``.

What most of them never have is in ``rest``, an object that is made when there is something to keep in it. Texts that many of them
have in common (stock keys, channels) are one object for all: whoever makes them sees to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

Value = TypeVar("Value")


class ClaimRest:
    """What most claims never have, apart from them: a million open holds have none of it."""

    __slots__ = ("expired", "fulfilled", "imposed", "next", "picked", "released", "uncovered")

    def __init__(self) -> None:
        self.expired = self.fulfilled = self.imposed = self.picked = self.released = self.uncovered = 0
        self.next: Claim | None = None


class InRest(Generic[Value]):
    """An attribute that an object keeps in its ``rest``, an object of its own, made when something else than ``absent`` is set."""

    def __init__(self, absent: Value, make: type[Any]) -> None:
        self._absent = absent
        self._make = make
        self._name = ""

    def __set_name__(self, _owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, holder: Any, _owner: type[Any]) -> Value:
        rest = holder.rest
        return self._absent if rest is None else cast(Value, getattr(rest, self._name))

    def __set__(self, holder: Any, value: Value) -> None:
        rest = holder.rest
        if rest is None:
            if value == self._absent:
                return
            rest = holder.rest = self._make()
        setattr(rest, self._name, value)


class Claim:
    """What one reservation line has on one stock actor. Claims of the same reservation there hang on ``next``."""

    __slots__ = (
        "channel_id",
        "confirmed",
        "granted",
        "line_id",
        "order_reference",
        "reservation_id",
        "rest",
        "sequence",
    )

    def __init__(self, reservation_id: str, line_id: str, channel_id: str, order_reference: str, sequence: int) -> None:
        self.reservation_id = reservation_id
        self.line_id = line_id
        self.channel_id = channel_id
        self.order_reference = order_reference
        self.sequence = sequence  # of the event that made it: claims are listed in this order
        self.granted = 0
        self.confirmed = False
        self.rest: ClaimRest | None = None

    fulfilled = InRest[int](0, ClaimRest)
    released = InRest[int](0, ClaimRest)
    expired = InRest[int](0, ClaimRest)
    picked = InRest[int](0, ClaimRest)  # the net: picks less unpicks less shipped
    imposed = InRest[int](0, ClaimRest)
    uncovered = InRest[int](0, ClaimRest)
    next = InRest["Claim | None"](None, ClaimRest)

    @property
    def open(self) -> int:
        """Units not ended yet."""
        rest = self.rest
        return self.granted if rest is None else self.granted - rest.fulfilled - rest.released - rest.expired

    def chain(self) -> Iterator[Claim]:
        """This claim and those of the same reservation after it."""
        claim: Claim | None = self
        while claim is not None:
            yield claim
            claim = claim.next

    def line(self, line_id: str) -> Claim | None:
        """The claim of that line id in this chain."""
        claim: Claim | None = self
        while claim is not None:
            if claim.line_id == line_id:
                return claim
            claim = claim.next
        return None


class Spent:
    """One request id spent on a reservation: the first decision, to be given again."""

    __slots__ = (
        "digest",
        "epoch",
        "expire_time_ms",
        "lines",
        "refusal",
        "request_id",
        "sequence",
        "state",
        "time_ms",
        "verb",
        "version",
    )

    def __init__(self, request_id: str, digest: bytes, verb: int, refusal: Sequence[Any]) -> None:
        self.request_id = request_id
        self.digest = digest
        self.verb = verb
        self.refusal = refusal
        self.state = 0
        self.version = 0
        self.expire_time_ms = 0
        self.epoch = 0
        self.sequence = 0
        self.time_ms = 0
        self.lines: Sequence[Sequence[Any]] | None = None  # the lines then, where an amend changed them since


class ReservationRest:
    """What an open hold without labels or customer does not have, apart from it."""

    __slots__ = (
        "customer_id",
        "end_time_ms",
        "final_lines",
        "first_expire_time_ms",
        "first_lines",
        "fulfilled_units",
        "labels",
        "replaces_reservation_id",
        "spent",
    )

    def __init__(self) -> None:
        self.customer_id = self.replaces_reservation_id = ""
        self.labels: Sequence[Sequence[str]] = ()
        self.end_time_ms = self.fulfilled_units = 0
        self.first_expire_time_ms: int | None = None
        self.first_lines: Sequence[Sequence[Any]] | None = None
        self.final_lines: Sequence[Sequence[Any]] | None = None
        self.spent: list[Spent] | None = None


class Reservation:
    """The home's record: keys, deadline, decisions. The truth about a line's units is its claim.

    Made small: there may be millions. ``request_key`` is ``identity.request_key``, of which the request id is a part; a single line is
    kept without the tuple around it; what few have is in ``rest``.
    """

    __slots__ = (
        "channel_id",
        "confirm_time_ms",
        "create_time_ms",
        "digest",
        "expire_time_ms",
        "id",
        "kept_lines",
        "open_epoch",
        "open_sequence",
        "open_units",
        "order_reference",
        "request_key",
        "rest",
        "state",
        "version",
    )

    def __init__(
        self,
        reservation_id: str,
        channel_id: str,
        request_key: str,
        digest: bytes,
        state: int = 0,
        expire_time_ms: int = 0,
        order_reference: str = "",
    ) -> None:
        self.id = reservation_id
        self.channel_id = channel_id
        self.request_key = request_key
        self.digest = digest
        self.order_reference = order_reference
        self.state = state
        self.version = 1
        self.kept_lines: Sequence[Any] = ()
        self.open_units = 0
        self.create_time_ms = 0
        self.expire_time_ms = expire_time_ms
        self.confirm_time_ms = 0
        # The reserve's decision, to be given again: where it stands; beside them its deadline (0: confirmed at once) and its
        # lines where an amend changed them since.
        self.open_epoch = 0
        self.open_sequence = 0
        self.rest: ReservationRest | None = None

    customer_id = InRest[str]("", ReservationRest)
    replaces_reservation_id = InRest[str]("", ReservationRest)
    labels = InRest[Sequence[Sequence[str]]]((), ReservationRest)
    end_time_ms = InRest[int](0, ReservationRest)
    fulfilled_units = InRest[int](0, ReservationRest)
    first_lines = InRest[Sequence[Sequence[Any]] | None](None, ReservationRest)
    spent = InRest[list[Spent] | None](None, ReservationRest)  # later verbs' decisions
    # LineViews, only on one read back from the entries table
    final_lines = InRest[Sequence[Sequence[Any]] | None](None, ReservationRest)

    @property
    def number(self) -> int:
        """Its number at its home, which its id ends with."""
        return int(self.id[self.id.rfind("-") + 1 :])

    @property
    def request_id(self) -> str:
        """The id that its reserve spent."""
        return self.request_key[len(self.channel_id) + 3 :]

    @property
    def lines(self) -> Sequence[Sequence[Any]]:
        """[line_id, stock_key, requested, granted at the last decision] of each."""
        kept = self.kept_lines
        return (kept,) if kept and type(kept[0]) is str else kept

    @lines.setter
    def lines(self, lines: Sequence[Sequence[Any]]) -> None:
        self.kept_lines = lines[0] if len(lines) == 1 else lines

    @property
    def first_expire_time_ms(self) -> int:
        """The deadline as it was decided at first; 0: confirmed at once."""
        first = self.rest.first_expire_time_ms if self.rest is not None else None
        return self.expire_time_ms if first is None else first

    def extend(self, expire_time_ms: int) -> None:
        """Another deadline from now on; the first stays known."""
        self.keep_first_deadline(self.first_expire_time_ms)
        self.expire_time_ms = expire_time_ms

    def keep_first_deadline(self, first_expire_time_ms: int) -> None:
        """The deadline that was decided at first."""
        if self.rest is None:
            self.rest = ReservationRest()
        self.rest.first_expire_time_ms = first_expire_time_ms
