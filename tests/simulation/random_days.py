"""Random days of the engine against the model, as many as one likes: no network and no faults but restarts.

    python -m tests.simulation.random_days --days 3000 [--first 0] [--turns 40] [--search]

Each day is a seed. A day on which engine and model disagree, or an invariant breaks, is told with its first violation; the
exit code is then 1. ``--search`` looks for an order that explains the answers as well (``linearize``).
"""

from __future__ import annotations

import argparse
import sys
import time

from actors.journal.memory import MemoryJournal
from actors.journal.verify import verify
from tests.simulation.checker import check
from tests.simulation.linearize import unexplained
from tests.simulation.recording import Trader, settings_of

PROGRESS_DAYS = 200


def day(seed: int, turns: int, *, search: bool) -> tuple[int, list[str]]:
    """One day: how many operations it had, and what is wrong with it."""
    trader = Trader(seed)
    try:
        world = trader.trade(turns)
        world.check_replay()
    except AssertionError as broken:
        return len(trader.world.operations), [f"an invariant broke: {broken}"]
    settings = settings_of(world.rules)
    wrong = [str(violation) for violation in check(world.history(), settings)]
    wrong += [str(violation) for violation in verify(MemoryJournal(world.store)).violations]
    if search:
        wrong += [str(one) for one in unexplained(world.operations, settings)]
    return len(world.operations), wrong


def main() -> int:
    """Run the days asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="the first day's seed")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--search", action="store_true")
    asked = parser.parse_args()
    started_s = time.process_time()
    operations = wrong_days = 0
    for number, seed in enumerate(range(asked.first, asked.first + asked.days), 1):
        count, wrong = day(seed, asked.turns, search=asked.search)
        operations += count
        if wrong:
            wrong_days += 1
            print(f"day {seed} ({asked.turns} turns): {len(wrong)} violations, the first:\n{wrong[0]}")
        if number % PROGRESS_DAYS == 0 or number == asked.days:
            cpu_s = time.process_time() - started_s
            print(f"{number} days, {operations} operations, {wrong_days} days wrong, {cpu_s:.0f} s of CPU", flush=True)
    return 1 if wrong_days else 0


if __name__ == "__main__":
    sys.exit(main())
