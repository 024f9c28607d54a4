"""What a run must leave behind: a clean journal, and in it everything that anybody was told, once.

The judges themselves are elsewhere (``stockade verify``'s, the history's checker, the replay of snapshots); this asks them
all and puts their words together. Only whether each acknowledged command is in the journal once is looked up here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from actors.domain.rules import Rules
from actors.runtime.offline import verify_journal
from actors.runtime.wiring import read_data_journal
from tests.e2e.journal_check import check_snapshots_against_full_replay
from tests.simulation.checker import check
from tests.simulation.history import OK, OPERATOR_VERBS, READS, History, JournalFacts, Operation
from tests.simulation.journal_facts import journal_facts
from tests.simulation.model import Settings

PROBLEMS_TOLD_MAX = 20

Say = Callable[[str], None]


@dataclass
class Judgement:
    """``problems``: empty when all is well. ``figures``: what was judged, and how long it took."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def take(self, judge: str, problems: Iterable[str]) -> None:
        """One judge's findings, the first of them word for word."""
        found = list(problems)
        self.problems += [f"{judge}: {problem}" for problem in found[:PROBLEMS_TOLD_MAX]]
        if len(found) > PROBLEMS_TOLD_MAX:
            self.problems.append(f"{judge}: … and {len(found) - PROBLEMS_TOLD_MAX} more")


def judge(data_dir: Path, operations: list[Operation], rules: Rules, model: Settings, say: Say) -> Judgement:
    """Everything that can be said about a data directory that nobody serves any more."""
    judgement = Judgement()
    figures = judgement.figures
    report = verify_journal(data_dir)
    judgement.take("verify", map(str, report.violations))
    if report.oversells:
        judgement.take("verify", [f"{report.oversells} oversells"])
    figures |= {"events": report.events, "records": report.records, "reservations": report.reservations}
    figures |= {"units_granted": report.units_granted, "oversells": report.oversells}
    say(f"verify: {report.events} events in {report.seconds:.1f} s, {report.violation_count} violations")

    started = time.monotonic()
    try:
        figures["shards_with_snapshot"] = check_snapshots_against_full_replay(data_dir, rules)
    except AssertionError as error:
        judgement.take("replay", [str(error)])
    say(f"snapshot and tail against the full replay: {time.monotonic() - started:.1f} s")

    journal = read_data_journal(data_dir)
    try:
        facts = journal_facts(journal)
    finally:
        journal.close()
    judgement.take("acknowledged", unacknowledged(operations, facts))
    figures |= {"operations": len(operations), "effects": len(facts.effects)}
    started = time.monotonic()
    violations = check(History(operations, facts), model)
    judgement.take("history", map(str, violations))
    seconds = time.monotonic() - started
    say(
        f"history: {len(operations)} operations, {len(facts.effects)} effects in {seconds:.1f} s, {len(violations)} violations"
    )
    return judgement


def unacknowledged(operations: Iterable[Operation], facts: JournalFacts) -> Iterable[str]:
    """Acknowledged commands that are not in the journal, or more than once, or as something else."""
    times: Counter[tuple[object, ...]] = Counter()
    made: dict[tuple[object, ...], str] = {}
    for effect in facts.effects:
        if effect.kind == "command":
            times[spoken(effect.identity)] += 1
            if effect.verb == "reserve":
                made[effect.identity] = effect.reservation_id
    yield from (f"{identity} was decided {count} times" for identity, count in times.items() if count > 1)
    for operation in operations:
        if operation.status != OK or operation.verb in READS:
            continue
        identity = identity_of(operation, facts)
        if operation.answer.get("outcome") in ("REJECTED", "DEFERRED"):
            continue  # a rejection's place may be another shard's
        if not times[identity]:
            yield f"acknowledged, and not in the journal: {operation.about}"
        elif operation.verb == "reserve" and made.get(identity) != operation.answer["reservation_id"]:
            yield f"the journal has {made.get(identity)} for {operation.about}"


def spoken(identity: tuple[object, ...]) -> tuple[object, ...]:
    """An identity without what callers do not know: the shard of an event."""
    return ("event", *identity[-2:]) if identity and identity[0] == "event" else identity


def identity_of(operation: Operation, facts: JournalFacts) -> tuple[object, ...]:
    """How the journal names what this operation spent."""
    arguments = operation.arguments
    if operation.verb == "ingest":
        return ("event", arguments["source_id"], arguments["event_id"])
    if operation.verb in OPERATOR_VERBS:
        return ("operator", arguments["request_id"], arguments["key"])
    channel = arguments.get("channel_id") or facts.channels.get(arguments.get("reservation_id", ""), "")
    return ("request", channel, arguments["request_id"])
