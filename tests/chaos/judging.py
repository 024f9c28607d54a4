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
from actors.journal.port import Journal
from actors.journal.verify import VerifyReport
from actors.runtime.offline import verify_journal
from actors.runtime.wiring import read_data_journal
from tests.e2e.journal_check import check_snapshots
from tests.simulation.checker import check
from tests.simulation.history import OK, OPERATOR_VERBS, READS, History, JournalFacts, Operation
from tests.simulation.journal_facts import journal_facts
from tests.simulation.model import Settings

PROBLEMS_TOLD_MAX = 20
DECIDED_AGAIN = " was decided "

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
    return judge_journal(lambda: read_data_journal(data_dir), verify_journal(data_dir), operations, rules, model, say)


def judge_journal(
    open_journal: Callable[[], Journal],
    report: VerifyReport,
    operations: list[Operation],
    rules: Rules,
    model: Settings,
    say: Say,
) -> Judgement:
    """The same about any journal, which ``open_journal`` opens to be read. ``report``: what verify said of it."""
    judgement = Judgement()
    figures = judgement.figures
    judgement.take("verify", map(str, report.violations))
    if report.oversells:
        judgement.take("verify", [f"{report.oversells} oversells"])
    figures |= {"events": report.events, "records": report.records, "reservations": report.reservations}
    figures |= {"units_granted": report.units_granted, "oversells": report.oversells}
    say(f"verify: {report.events} events in {report.seconds:.1f} s, {report.violation_count} violations")

    started = time.monotonic()
    journal = open_journal()
    try:
        figures["shards_with_snapshot"] = check_snapshots(journal, rules)
    except AssertionError as error:
        judgement.take("replay", [str(error)])
    finally:
        journal.close()
    say(f"snapshot and tail against the full replay: {time.monotonic() - started:.1f} s")

    journal = open_journal()
    try:
        facts = journal_facts(journal)
    finally:
        journal.close()
    missing = list(unacknowledged(operations, facts))
    judgement.take("acknowledged", missing)
    figures |= {"operations": len(operations), "effects": len(facts.effects)}
    figures["twice"] = sum(DECIDED_AGAIN in one for one in missing)
    figures["lost"] = len(missing) - figures["twice"]
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
    yield from (f"{identity}{DECIDED_AGAIN}{count} times" for identity, count in times.items() if count > 1)
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
