"""The order of a history: which operation is which effect of the journal, and one order that fits all positions and all times.

O(n log n): a shard's effects stand in the order of their sequences and an answer after the last effect that its position
includes; shards are merged by a topological sort, which also keeps the order of real time (who returned before another was
invoked comes first), by a chain of all returns. It decides nothing about stock.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.simulation.history import NOT_DONE, OK, OPERATOR_VERBS, READS, REFUSED, UNKNOWN, Effect, History, Operation

EVENT_ID_REUSED = 8  # the number of that reason in the journal


@dataclass(slots=True, eq=False)
class Step:
    """One thing to run through the model: an effect with the operation that was told of it, or an answer by itself."""

    effect: Effect | None = None
    operation: Operation | None = None  # whose answer this is; None: nobody was told
    attempt: Operation | None = None  # who asked for an effect that nobody was told of
    invoked: float = -math.inf
    returned: float = math.inf
    known: float = math.inf  # by when it must have happened: somebody who came after it had returned
    first: bool = True  # False: a decision given again, judged against the first
    repeats: Effect | None = None


@dataclass(slots=True)
class Ordered:
    """Steps in an order to be judged in, and what already cannot be."""

    steps: list[Step] = field(default_factory=list)
    problems: list[tuple[str, str, Operation | None]] = field(default_factory=list)  # kind, text, operation


def in_order(history: History) -> Ordered:
    """The history's steps in one order."""
    ordered = Ordered()
    matcher = Matcher(history, ordered)
    steps = matcher.steps()
    shards = Shards(history, steps, ordered)
    fits_time = shards.check_real_time()
    found = shards.sort(with_time=fits_time)
    if len(found) < len(steps) and fits_time:
        sorted_ones = {id(step) for step in found}
        stuck = [one.operation.about for one in steps if one.operation is not None and id(one) not in sorted_ones][:4]
        ordered.problems.append(
            ("real time", "no order fits both the positions and the times of: " + "; ".join(stuck), None)
        )
        found = shards.sort(with_time=False)
    if len(found) < len(steps):
        ordered.problems.append(("positions", "the positions of several shards contradict each other", None))
    ordered.steps = found
    return ordered


# --- who is what ------------------------------------------------------------------------------------------------------------


class Matcher:
    """Finds for every effect the operation that was told of it, or else one that may have asked for it."""

    def __init__(self, history: History, ordered: Ordered) -> None:
        self._history = history
        self._problems = ordered.problems
        self._attempts: dict[tuple[Any, ...], list[Operation]] = {}
        self._effects: dict[tuple[Any, ...], list[Effect]] = {}
        self._events: dict[tuple[Any, ...], list[Effect]] = {}

    def steps(self) -> list[Step]:
        """One for every effect, and for every answer that is not an effect's."""
        for operation in self._history.operations:
            if operation.verb not in READS:
                self._attempts.setdefault(self._identity(operation), []).append(operation)
        steps: list[Step] = []
        told: dict[int, Step] = {}
        for effect in self._history.journal.effects:
            if effect.kind == "settled":
                self._effects.setdefault(effect.identity, []).append(effect)
            step = self._step(effect) if effect.kind == "command" else Step(effect)
            if step.operation is not None:
                told[id(step.operation)] = step
            steps.append(step)
        for operation in self._history.operations:
            if id(operation) not in told and operation.status in (OK, REFUSED):
                steps.append(self._answer(operation))
            elif operation.status == NOT_DONE or operation.status == UNKNOWN:
                self._check_error(operation)
        return steps

    def _identity(self, operation: Operation) -> tuple[Any, ...]:
        arguments = operation.arguments
        if operation.verb == "ingest":
            return ("event", arguments["source_id"], arguments["event_id"])
        if operation.verb in OPERATOR_VERBS:
            return ("operator", arguments["request_id"], arguments["key"])
        channel_id = arguments.get("channel_id")
        if channel_id is None:
            channel_id = self._history.journal.channels.get(arguments["reservation_id"], "")
        return ("request", channel_id, arguments["request_id"])

    def _step(self, effect: Effect) -> Step:
        step = self._told(effect)
        if effect.answer and effect.answer[3] == EVENT_ID_REUSED:
            step.repeats = next(iter(self._original(effect)), None)
        return step

    def _original(self, effect: Effect) -> list[Effect]:
        """The event, of whatever stock key, that took the id before."""
        if not self._events:
            for one in self._history.journal.effects:
                if one.answer and one.answer[3] != EVENT_ID_REUSED:
                    self._events.setdefault(one.identity, []).append(one)
        return self._events.get(effect.identity, [])

    def _told(self, effect: Effect) -> Step:
        identity = effect.identity
        earlier = self._effects.setdefault(identity, [])
        earlier.append(effect)
        attempts = [one for one in self._attempts.get(identity, ()) if may_be(one, effect)]
        step = Step(effect)
        acknowledged = [one for one in attempts if tells_of(one, effect)]
        if len(acknowledged) > 1:
            self._add("idempotency", "two calls were each told that they did it first", acknowledged[1])
        if acknowledged:
            step.operation = acknowledged[0]
            step.invoked, step.returned = acknowledged[0].invoked, acknowledged[0].returned
            return step
        order = {OK: 0, UNKNOWN: 1, REFUSED: 2, NOT_DONE: 3}
        unanswered = sorted(attempts, key=lambda one: (order[one.status], one.invoked))
        if not unanswered:
            text = f"the journal holds a {effect.verb} {effect.identity} at {places(effect)} that nobody asked for"
            self._add("unasked", text, None)
        elif unanswered[0].status == NOT_DONE:
            self._add("not done", f"the caller was told that it was not done; it is at {places(effect)}", unanswered[0])
        if unanswered:
            step.attempt = unanswered[0]
            step.invoked = min(one.invoked for one in unanswered)
        return step

    def _answer(self, operation: Operation) -> Step:
        step = Step(None, operation, None, operation.invoked, operation.returned)
        if operation.verb in READS:
            return step
        effects = [one for one in self._effects.get(self._identity(operation), ()) if may_be(operation, one)]
        if operation.replayed and not effects and operation.verb == "ingest":
            return step  # so old that its id is forgotten: its sequence alone tells
        if operation.replayed:
            step.first = False
            of_it = [one for one in effects if is_decision(operation, one)]
            step.repeats = of_it[0] if of_it else None
            if not effects:
                self._add("idempotency", "a decision was given again that the journal does not hold", operation)
            elif not of_it:
                where = "; ".join(places(one) for one in effects)
                self._add(
                    "idempotency", f"it was given again with another position: the decision is at {where}", operation
                )
        elif operation.status == OK:
            where = "; ".join(places(one) for one in effects) or "nowhere"
            self._add(
                "lost", f"it was acknowledged and is not in the journal there: that id's effect is {where}", operation
            )
        return step

    def _check_error(self, operation: Operation) -> None:
        if operation.answer.get("error") == "INTERNAL":
            self._add("internal", "the service answered INTERNAL", operation)

    def _add(self, kind: str, text: str, operation: Operation | None) -> None:
        self._problems.append((kind, text, operation))


def may_be(operation: Operation, effect: Effect) -> bool:
    """Whether the effect can be this call's: same content, and where its answer says."""
    if operation.verb != effect.verb and {operation.verb, effect.verb} not in SAME_VERB:
        return False
    if operation.digest and effect.digest:
        return operation.digest == effect.digest
    if effect.verb == "ingest" and not operation.digest and operation.answer.get("outcome") and effect.answer:
        outcome = effect.answer[0]
        return operation.answer["outcome"] == outcome or (operation.answer["outcome"], outcome) == (
            "DUPLICATE",
            "APPLIED",
        )
    return True


SAME_VERB = (
    {"release", "release_by_request"},
    {"set_selling", "suspend_selling"},
    {"set_selling", "resume_selling"},
)


def tells_of(operation: Operation, effect: Effect) -> bool:
    """Whether this answer is the effect's own, first one."""
    if operation.replayed or operation.status not in (OK, REFUSED) or (operation.status == REFUSED) != effect.refused:
        return False
    if operation.home < 0:  # a rejected event is told without a position
        return operation.answer.get("exception_id") == (effect.answer[2] if effect.answer else "")
    return is_decision(operation, effect)


def is_decision(operation: Operation, effect: Effect) -> bool:
    """Whether the answer's own position is the effect's."""
    if operation.verb in OPERATOR_VERBS and operation.replayed:
        return True  # it shows the stock key as it is now
    place = operation.positions.get(operation.home)
    if place is None:
        return operation.home < 0
    return (operation.home, place.epoch, place.sequence) == effect.told_at


def places(effect: Effect) -> str:
    """Where an effect lies."""
    return ", ".join(f"{shard}:{span.epoch}/{span.first}–{span.last}" for shard, span in sorted(effect.spans.items()))


# --- in what order ------------------------------------------------------------------------------------------------------------


class Shards:
    """The effects of every shard in their order, and where each answer stands among them."""

    def __init__(self, history: History, steps: list[Step], ordered: Ordered) -> None:
        self._steps = steps
        self._history = history
        self._problems = ordered.problems
        self._numbers = {id(step): number for number, step in enumerate(steps)}
        self._writes: dict[int, list[int]] = {}  # shard → steps with effects there, in order
        self._lasts: dict[int, list[int]] = {}  # … and their last sequences
        self._firsts: dict[int, list[int]] = {}
        self._seen: list[dict[int, int]] = [{} for _ in steps]  # shard → sequence, of answers by themselves
        self._place()

    def _place(self) -> None:
        by_shard: dict[int, list[tuple[int, int, int]]] = {}
        for number, step in enumerate(self._steps):
            if step.effect is not None:
                for shard, span in step.effect.spans.items():
                    by_shard.setdefault(shard, []).append((span.first, span.last, number))
        for shard, spans in by_shard.items():
            spans.sort()
            self._firsts[shard] = [first for first, _, _ in spans]
            self._lasts[shard] = [last for _, last, _ in spans]
            self._writes[shard] = [number for _, _, number in spans]
        for number, step in enumerate(self._steps):
            if step.operation is not None:
                self._check_places(number, step, step.operation)

    def _check_places(self, number: int, step: Step, operation: Operation) -> None:
        journal = self._history.journal
        for shard, place in operation.positions.items():
            if place.timeline != journal.timeline:
                self._add("positions", f"it is of timeline {place.timeline!r}", operation)
                continue
            last = journal.last_sequences.get(shard, 0)
            if place.sequence > last:
                self._add(
                    "durability", f"it saw shard {shard} at {place.sequence}; the journal ends at {last}", operation
                )
                continue
            epochs = journal.epochs.get(shard, [])
            index = bisect_right(epochs, (place.sequence, math.inf)) - 1
            if index < 0 or epochs[index][1] != place.epoch:
                there = epochs[index][1] if index >= 0 else 0
                text = f"it saw shard {shard} at {place.sequence} in epoch {place.epoch}; the journal has it in {there}"
                self._add("positions", text, operation)
            given_again = not step.first and shard == operation.home and operation.verb not in OPERATOR_VERBS
            if step.effect is not None and shard in step.effect.spans:
                told_at = step.effect.told_at
                if (told_at[2] if shard == told_at[0] else step.effect.spans[shard].last) != place.sequence:
                    text = f"it says {place.sequence} of shard {shard}; its events there are {places(step.effect)}"
                    self._add("positions", text, operation)
            elif not given_again:
                self._seen[number][shard] = place.sequence
                inside = bisect_left(self._lasts.get(shard, []), place.sequence + 1)
                firsts = self._firsts.get(shard, [])
                if inside < len(firsts) and firsts[inside] <= place.sequence:
                    self._add("positions", f"it saw shard {shard} at {place.sequence}, amid one decision", operation)

    def _add(self, kind: str, text: str, operation: Operation | None) -> None:
        self._problems.append((kind, text, operation))

    def _reach(self, number: int) -> dict[int, int]:
        """How far a step had seen each shard."""
        effect = self._steps[number].effect
        if effect is None:
            return self._seen[number]
        return {**self._seen[number], **{shard: span.last for shard, span in effect.spans.items()}}

    def check_real_time(self) -> bool:
        """No step lies before what another had seen that returned before it was invoked, shard by shard."""
        events: list[tuple[float, int, int]] = []
        for number, step in enumerate(self._steps):
            if step.invoked > -math.inf:
                events.append((step.invoked, 0, number))
            if step.operation is not None and step.returned < math.inf:
                events.append((step.returned, 1, number))
        events.sort()
        frontier: dict[int, tuple[int, int]] = {}
        fits = True
        for _, returned, number in events:
            step = self._steps[number]
            if returned:
                for shard, sequence in self._reach(number).items():
                    if sequence > frontier.get(shard, (0, 0))[0]:
                        frontier[shard] = (sequence, number)
                continue
            spans = step.effect.spans if step.effect is not None else {}
            for shard, sequence in self._reach(number).items():
                ahead, other = frontier.get(shard, (0, 0))
                if ahead > (spans[shard].first - 1 if shard in spans else sequence):
                    fits = False
                    earlier = self._steps[other].operation
                    assert earlier is not None
                    text = f"shard {shard}: it lies at {sequence}, before what had returned: {earlier.about}"
                    self._add("real time", text, step.operation or step.attempt)
        return fits

    def sort(self, *, with_time: bool) -> list[Step]:
        """The steps in one order; fewer when there is none."""
        count = len(self._steps)
        after: list[list[int]] = [[] for _ in range(count)]
        waits = [0] * count

        def edge(earlier: int, later: int) -> None:
            if earlier != later:
                after[earlier].append(later)
                waits[later] += 1

        for writes in self._writes.values():
            for earlier, later in pairwise(writes):
                edge(earlier, later)
        for number, seen in enumerate(self._seen):
            for shard, sequence in seen.items():
                writes = self._writes.get(shard, [])
                index = bisect_right(self._lasts.get(shard, []), sequence)
                if index:
                    edge(writes[index - 1], number)
                if index < len(writes):
                    edge(number, writes[index])
            repeats = self._steps[number].repeats
            if repeats is not None:
                home = repeats.spans[repeats.home]  # of one that waited: the decision then, or that it waits
                edge(self._writes[repeats.home][bisect_left(self._lasts[repeats.home], home.last)], number)
        forgotten: dict[str, list[int]] = {}
        for number, step in enumerate(self._steps):
            if step.effect is not None and step.effect.kind == "forgotten":
                forgotten.setdefault(step.effect.reservation_id, []).append(number)
        for number, step in enumerate(self._steps):
            if step.effect is not None and step.effect.kind == "retired":
                for earlier in forgotten.get(step.effect.reservation_id, ()):
                    edge(earlier, number)
        if with_time:
            self._time_edges(after, waits, edge)
        ready = deque(number for number in range(len(waits)) if not waits[number])
        done = []
        while ready:
            number = ready.popleft()
            done.append(number)
            for later in after[number]:
                waits[later] -= 1
                if not waits[later]:
                    ready.append(later)
        known = [step.returned if step.operation is not None else math.inf for step in self._steps]
        known += [math.inf] * (len(after) - count)
        for number in reversed(done):
            known[number] = min([known[number], *(known[later] for later in after[number])])
        order = [self._steps[number] for number in done if number < count]
        for number, step in enumerate(self._steps):
            step.known = known[number]
        return order

    def _time_edges(self, after: list[list[int]], waits: list[int], edge: Any) -> None:
        """A chain of all returns: step → its return → the next return; the last return before an invocation → that step."""
        steps = self._steps
        returning = sorted(
            (step.returned, number)
            for number, step in enumerate(steps)
            if step.operation is not None and step.returned < math.inf
        )
        times = [returned for returned, _ in returning]
        start = len(steps)
        after += [[] for _ in returning]
        waits += [0] * len(returning)
        for place, (_, number) in enumerate(returning):
            edge(number, start + place)
            if place:
                edge(start + place - 1, start + place)
        for number, step in enumerate(steps):
            before = bisect_left(times, step.invoked)
            if before:
                edge(start + before - 1, number)
