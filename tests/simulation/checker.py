"""The judge of a history: every answer must be the model's at the place where it was given, and nothing acknowledged is lost.

``check(history, settings)`` returns what is wrong, worst first; an empty list is a clean history. O(n log n): ``ordering``
puts every answer and every effect of the journal in one order, by positions, merged so that real time is kept; this runs
the ``model`` along it. Expiries and effects that nobody was told of come from the journal; whether they were right is judged.
It imports nothing of the service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.simulation import model_counts, model_feeds
from tests.simulation.history import OK, OPERATOR_VERBS, REFUSED, Effect, History, LineSeen, Operation
from tests.simulation.model import Model, Settings
from tests.simulation.model_feeds import Feed
from tests.simulation.ordering import Step, in_order, places

Identity = tuple[Any, ...]

VIOLATIONS_MAX = 50  # of one history; after a wrong turn the rest says little


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that cannot have happened. ``kind``: answer · expiry · lost · real time · idempotency · …"""

    kind: str
    text: str
    operation: Operation | None = None
    expected: Any = None
    got: Any = None

    def __str__(self) -> str:
        parts = [f"{self.kind}: {self.text}"]
        if self.operation is not None:
            parts.append(f"  {self.operation.about}")
        if self.expected is not None or self.got is not None:
            parts.append(f"  expected {self.expected}\n  got      {self.got}")
        return "\n".join(parts)


def check(history: History, settings: Settings | None = None) -> list[Violation]:
    """What is wrong with a history."""
    return Judge(history, settings or Settings()).judge()


class Judge:
    """Runs one history."""

    def __init__(self, history: History, settings: Settings) -> None:
        self._history = history
        self.model = Model(settings)
        self.model.shards = history.journal.shards
        self.violations: list[Violation] = []
        self._takeovers = [effect for effect in history.journal.effects if effect.kind == "owned"]
        self._exceptions: dict[str, str] = {}  # the model's exception → the service's
        self._their_exceptions: dict[str, str] = {}
        # Decisions on reservations that somewhere are given again: how each looked from its moment on, and those answers
        # whose moment is not found yet.
        self._repeated: set[Identity] = set()
        self._views: dict[Identity, list[View]] = {}
        self._watched: dict[str, list[Identity]] = {}  # by reservation: an effect can only change how its own look
        self._waiting: list[tuple[Operation, Identity]] = []
        self._settled_by: dict[Identity, float] = {}  # events that waited → by when they were decided
        self._lost_track = False

    def judge(self) -> list[Violation]:
        """All violations."""
        for problem in self._history.journal.problems:
            self._add("journal", problem)
        ordered = in_order(self._history)
        for kind, text, operation in ordered.problems:
            self._add(kind, text, operation)
        self._repeated = {
            step.repeats.identity for step in ordered.steps if step.repeats is not None and not step.first
        }
        for step in ordered.steps:
            self._run(step)
            if self._lost_track or len(self.violations) >= VIOLATIONS_MAX:
                return self.violations[:VIOLATIONS_MAX]
        for operation, identity in self._waiting:
            expected = self.model.again(self.model.spent[identity])
            self._add("answer", "given again with quantities that never were so", operation, expected, operation.answer)
        self._check_totals()
        return self.violations

    def _add(
        self, kind: str, text: str, operation: Operation | None = None, expected: Any = None, got: Any = None
    ) -> None:
        self.violations.append(Violation(kind, text, operation, expected, got))

    def _run(self, step: Step) -> None:
        effect = step.effect
        if effect is None:
            assert step.operation is not None
            if step.first:
                self._answer(step.operation)
            else:
                self._again(step)
        elif effect.kind == "command":
            self._command(step, effect)
        elif effect.kind == "settled":
            self._settled(step, effect)
        elif effect.kind == "gap closed":
            self.model.feeds.setdefault((effect.feed[0], effect.feed[1]), Feed()).close(effect.up_to)
        elif effect.kind == "expiry":
            self._expiry(effect)
        elif effect.kind == "owned":
            grace = effect.grace_until_ms - effect.time_ms
            if grace != self.model.settings.takeover_grace_ms:
                self._add("expiry", f"a grace of {grace} ms at {places(effect)}")
            self.model.own(effect.home, effect.time_ms, effect.grace_until_ms)
        elif effect.kind == "forgotten":
            self.model.forget_claims(effect.key, effect.reservation_id)
        else:
            self.model.retire(effect.reservation_id)
        if effect is not None:
            self._history_forgotten(effect)
        if effect is not None and self._views and effect.verb not in OPERATOR_VERBS:
            self._look(step)

    def _transfers_closed(self, effect: Effect, own: tuple[Any, Any]) -> None:
        """Those that are over are let go of to make room for another; what it completes itself goes with it."""
        for key, transfer_id, line in effect.transfers_forgotten:
            if (transfer_id, line) == own:
                continue
            stock = self.model.stock.get(key)
            transfer = stock.transfers.get((transfer_id, line)) if stock is not None else None
            if stock is not None and transfer is not None and not transfer.in_transit and not transfer.exception:
                del stock.transfers[(transfer_id, line)]

    def _history_forgotten(self, effect: Effect) -> None:
        for key, before_ms in effect.history_forgotten:
            stock, bound = self.model.stock[key], model_counts.FACTS_MAX
            if before_ms > effect.time_ms - self.model.settings.history_ms and len(stock.notes) <= bound:
                self._add("history", f"what happened since {before_ms} on {key} was forgotten at {places(effect)}")
            model_counts.forget(stock, before_ms)
        for key, transfer_id, line in effect.transfers_forgotten:
            if (transfer_id, line) in self.model.stock[key].transfers:
                self._add("history", f"transfer {transfer_id} to {key} is open and was forgotten at {places(effect)}")

    # --- effects ------------------------------------------------------------------------------------------------------------

    def _expiry(self, effect: Effect) -> None:
        reservation = self.model.reservations.get(effect.reservation_id)
        if reservation is None or not self.model.due(reservation, effect.time_ms):
            state = (
                "nobody knows"
                if reservation is None
                else f"{reservation.state}, due {self.model.deadline(reservation)}"
            )
            text = f"{effect.reservation_id} ({state}) expired at {effect.time_ms}, {places(effect)}"
            self._add("expiry", text)
            self._lost_track = reservation is None or not reservation.live
        if reservation is not None and reservation.live:
            self.model.expire(effect.reservation_id, effect.time_ms)

    def _command(self, step: Step, effect: Effect) -> None:
        asked = step.operation or step.attempt
        if asked is None:
            self._lost_track = True  # already told: nobody asked for it
            return
        self._check_due(asked, effect.time_ms)
        details = asked.arguments.get("details", {})
        self._transfers_closed(effect, (details.get("transfer_id"), details.get("transfer_line")))
        outcome = self.model.call(
            asked.verb,
            asked.arguments,
            effect.time_ms,
            new_id=effect.reservation_id,
            shard=effect.home,
            digest=effect.digest,
        )
        status = REFUSED if effect.refused else OK
        if outcome.status != status or not outcome.changed:
            why = "given again" if outcome.replayed else "it changes nothing"
            expected = (outcome.status, why if not outcome.changed else "", outcome.answer)
            text = f"the journal holds as {status} what should not be so, at {places(effect)}"
            self._add("answer", text, asked, expected, step.operation.answer if step.operation is not None else None)
            self._lost_track = True
            return
        granted = outcome.answer.get("lines", ())
        lines = tuple((line.line_id, line.key, line.requested, line.granted) for line in granted)
        if effect.lines and lines != effect.lines:
            self._add("journal", f"other lines than granted, at {places(effect)}", asked, lines, effect.lines)
        if effect.identity in self._repeated and outcome.answer.get("reservation_id"):
            spent = self.model.spent[effect.identity]
            self._views[effect.identity] = [View(self.model.again(spent))]
            self._watched.setdefault(spent.reservation_id, []).append(effect.identity)
        if step.operation is not None:
            if step.operation.time_ms not in (0, effect.time_ms):
                self._add("positions", f"decided at {effect.time_ms}, at {places(effect)}", step.operation)
            self._compare(step.operation, outcome.answer)

    def _settled(self, step: Step, effect: Effect) -> None:
        """An event that waited was decided, for nobody in particular."""
        outcome = model_feeds.settle(self.model, effect.identity, effect.time_ms)
        if outcome.status != OK:
            self._add("waiting", f"{effect.identity} was decided at {places(effect)}: {outcome.answer['error']}")
            self._lost_track = True
            return
        self._settled_by[effect.identity] = step.known
        mine = (outcome.answer["outcome"], outcome.answer["shortage"], outcome.answer["reject_reason"])
        theirs = (effect.answer[0], effect.answer[1], REJECT_REASONS.get(effect.answer[3], effect.answer[3]))
        if mine != theirs:
            self._add("answer", f"{effect.identity} waited and became at {places(effect)}", None, mine, theirs)

    def _check_due(self, asked: Operation, now_ms: int) -> None:
        """A hold whose deadline has come expires before anything else is decided or said about it."""
        reservation_id = asked.arguments.get("reservation_id") or asked.arguments.get("replaces_reservation_id")
        if asked.verb == "release_by_request":
            arguments = asked.arguments
            spent = self.model.spent.get(("request", arguments["channel_id"], arguments["reserve_request_id"]))
            reservation_id = spent.reservation_id if spent is not None else ""
        reservation = self.model.reservations.get(reservation_id) if reservation_id else None
        if reservation is not None and self.model.due(reservation, now_ms):
            deadline = self.model.deadline(reservation)
            self._add("expiry", f"at {now_ms} and not expired, though due at {deadline}", asked)

    def _has_grace(self, reservation_id: str, now_ms: int) -> bool:
        """Whether its home has an owner since whose grace it still has, though no answer's position tells so: a refusal at one
        shard may lie before the takeover of another in our order, and its owner took both in one commit."""
        home, reservation = self.model.homes.get(reservation_id), self.model.reservations[reservation_id]
        return any(
            taken.home == home and reservation.expire_time_ms < taken.time_ms <= now_ms < taken.grace_until_ms
            for taken in self._takeovers
        )

    # --- answers ------------------------------------------------------------------------------------------------------------

    def _answer(self, operation: Operation) -> None:
        """A question, or a refusal that left no trace: it must be what the model says here, and change nothing."""
        if operation.verb not in ("get_availability", "get_stock"):
            self._check_due(operation, operation.time_ms)
        if operation.status == OK and operation.verb not in ("get_availability", "get_stock", "get_reservation"):
            return  # an acknowledged change that is not in the journal: told already
        arguments = operation.arguments
        outcome = self.model.call(
            operation.verb,
            arguments,
            operation.time_ms,
            new_id="not granted",
            shard=operation.home,
            digest=operation.digest,
        )
        if outcome.changed:
            self._add(
                "answer", "refused without a trace; it should have been", operation, outcome.answer, operation.answer
            )
            self._lost_track = True
        elif outcome.status != operation.status:
            self._add("answer", f"it should be {outcome.status}", operation, outcome.answer, operation.answer)
        else:
            self._compare(operation, outcome.answer)
        if operation.verb == "reserve" and operation.answer.get("reason") == "INSUFFICIENT_STOCK":
            for _, key, _, _, _ in operation.answer["shortages"]:
                due = self.model.due_on(key, operation.time_ms)
                late = [one for one in due if not self._has_grace(one, operation.time_ms)]
                if late:
                    self._add("expiry", f"refused while {late} were due on {key}", operation)

    def _again(self, step: Step) -> None:
        """A decision given again: the first one, with quantities of a moment between that call's beginning and end."""
        operation = step.operation
        assert operation is not None
        arguments = operation.arguments
        identity = self.model.identity(operation.verb, arguments)
        spent = self.model.spent.get(identity) if identity is not None else None
        if identity is None or spent is None:
            if step.repeats is not None:
                self._add("idempotency", "given again, and nobody decided it", operation)
            return
        outcome = self.model.repeat(identity, spent, operation.verb, arguments, operation.digest, operation.home)
        assert outcome is not None
        if spent.earlier is not None and operation.answer.get("outcome") == "DEFERRED":
            if self._settled_by[identity] < operation.invoked:
                self._add("answer", "it waits no more, and the answer says so", operation, outcome.answer)
            return
        if outcome.changed or outcome.status != operation.status:
            self._add("answer", f"given again: {outcome.status}", operation, outcome.answer, operation.answer)
            self._lost_track = outcome.changed
        elif (
            operation.verb == "ingest" or operation.status == REFUSED or not spent.reservation_id or "key" in arguments
        ):
            self._compare(operation, outcome.answer)
        elif fixed_part(operation.answer) != fixed_part(outcome.answer, operation.answer):
            self._add("answer", "given again as another decision", operation, outcome.answer, operation.answer)
        elif not any(shows(operation, view) for view in self._views.get(identity, ())):
            self._waiting.append((operation, identity))

    def _look(self, step: Step) -> None:
        """How the decisions that are given again somewhere look after an effect on their reservations."""
        assert step.effect is not None
        asked = step.operation or step.attempt
        touched = {step.effect.reservation_id, *step.effect.told}
        if asked is not None:
            touched |= {asked.arguments.get(name, "") for name in ("reservation_id", "replaces_reservation_id")}
        for identity in [one for reservation_id in touched for one in self._watched.get(reservation_id, ())]:
            views = self._views[identity]
            now = self.model.again(self.model.spent[identity])
            if now != views[-1].answer:
                views[-1].until = step.known
                views.append(View(now))
                if self._waiting:
                    self._waiting = [one for one in self._waiting if one[1] != identity or not shows(one[0], views[-1])]

    def _compare(self, operation: Operation, expected: dict[str, Any]) -> None:
        got = operation.answer
        differ = [name for name, value in got.items() if expected.get(name) != value and name != "exception_id"]
        if differ:
            wanted = {name: expected.get(name) for name in differ}
            self._add("answer", f"another {', '.join(differ)}", operation, wanted, {name: got[name] for name in differ})
        if "exception_id" in got:
            ours, theirs = expected["exception_id"], got["exception_id"]
            known = self._exceptions.setdefault(ours, theirs) == theirs
            if not known or self._their_exceptions.setdefault(theirs, ours) != ours or bool(ours) != bool(theirs):
                self._add("answer", "another exception", operation, (ours, self._exceptions.get(ours)), theirs)

    # --- the end ------------------------------------------------------------------------------------------------------------

    def _check_totals(self) -> None:
        """Conservation: what the journal's events add up to is what the model has. And nothing waits whose place was reached."""
        journal = self._history.journal
        for waiting in model_feeds.overdue(self.model):
            self._add("waiting", f"its place was reached and it waits: {waiting}")
        ours = {
            (key, reservation_id, line_id): (
                claim.granted,
                claim.fulfilled,
                claim.released,
                claim.expired,
                claim.net,
            )
            for key, stock in self.model.stock.items()
            for reservation_id, lines in stock.claims.items()
            for line_id, claim in lines.items()
        }
        for claim_key in sorted(ours.keys() | journal.claims.keys()):
            mine, theirs = ours.get(claim_key), journal.claims.get(claim_key)
            if mine != (tuple(theirs) if theirs is not None else None):
                self._add(
                    "conservation", f"granted, fulfilled, released, expired, picked of {claim_key}", None, mine, theirs
                )
        for key, stock in self.model.stock.items():
            for disposition in {*stock.on_hand, *(name for there, name in journal.on_hand if there == key)}:
                units, theirs_units = stock.on_hand_of(disposition), journal.on_hand.get((key, disposition), 0)
                if units != theirs_units:
                    self._add("conservation", f"on hand {disposition} of {key}", None, units, theirs_units)


@dataclass(slots=True)
class View:
    """How a decision looked when given again, and until when: the return of somebody who came after what changed it."""

    answer: dict[str, Any]
    until: float = math.inf


def shows(operation: Operation, view: View) -> bool:
    """Whether the answer is that view, and the view was not over before the call began."""
    if view.until < operation.invoked:
        return False
    return all(view.answer.get(name) == value for name, value in operation.answer.items())


def fixed_part(answer: dict[str, Any], like: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a decision given again may not change: ids, state and version then, first times, and lines as decided."""
    told = answer if like is None else like
    fixed = {name: answer.get(name) for name in told if name in FIXED}
    lines: tuple[LineSeen, ...] = answer["lines"]
    fixed["lines"] = tuple((line.line_id, line.key, line.requested, line.granted) for line in lines)
    return fixed


REJECT_REASONS = {
    0: "", 3: "UNKNOWN_STOCK_KEY", 9: "SHIPMENT_MISMATCH", 10: "QUANTITY_OUT_OF_RANGE", 12: "DEFERRED_TOO_LONG",
    13: "BEFORE_HISTORY",
}  # fmt: skip

FIXED = frozenset(
    ("reservation_id", "channel_id", "customer_id", "state", "version", "create_time_ms", "expire_time_ms")
)
