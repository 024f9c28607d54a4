"""A reader of changes in the simulation: it polls while everything fails, dies and goes on from where it was, and at the end
must have been told every change of the journal, each shard's in order, and of each stock key what stands there now.

What is a change is written down here once more: one for each stock key that a record touched, one for each event of a
reservation, a silence, or a requested reconciliation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from actors.domain.answers import OK
from actors.domain.commands import Verb
from actors.domain.keys import split_stock_key
from actors.journal.codec import decode_groups
from actors.journal.memory import MemoryStore
from tests.simulation.cluster import Cluster
from tests.simulation.trace import TIMELINE

AVAILABILITY, RESERVATION, WAREHOUSE = 1, 2, 3
TOUCHING = frozenset((10, 11, 12, 13, 20, 22, 23, 24, 25))
OF_RESERVATIONS = range(30, 36)
OF_WAREHOUSES = frozenset((63, 90))
WHOLE, TOO_OLD = 0, 2
FROM_OLDEST = -1
POLLS_AT_THE_END_MAX = 400

Named = tuple[int, int, str]  # kind, sequence, stock key, reservation id or warehouse


class ChangeReader:
    """``told``: by shard, the changes in the order in which they came. ``cursor``: how far it has come."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._draw = random.Random(f"{cluster.plan.seed}/change reader")
        shards = range(cluster.plan.shards)
        self.cursor = dict.fromkeys(shards, 0)
        self.told: dict[int, list[Sequence[Any]]] = {shard: [] for shard in shards}
        # by shard: cursors that it was given, and how many changes it had then
        self._marks: dict[int, list[tuple[int, int]]] = {shard: [] for shard in shards}
        self.anew: set[int] = set()  # shards of which it was told that what it wanted is gone
        self.problems: list[str] = []
        self._stopped = False

    def stop(self) -> None:
        """Nothing fails any more: ``catch_up`` is next."""
        self._stopped = True

    async def run(self) -> None:
        """Poll, rest, fall behind, poll."""
        while not self._stopped:
            await self._cluster.loop.pass_time(self._draw.choice((0.01, 0.05, 0.5, 3.0)))
            if self._draw.random() < 0.1:
                self._die()
            await self._poll(self._draw.choice((1, 5, 1_000)), self._draw.choice((0, 0, 20, 200)))

    async def catch_up(self) -> list[str]:
        """Read to the end; what is wrong."""
        quiet = 0
        for _ in range(POLLS_AT_THE_END_MAX):
            before = dict(self.cursor)
            answered = await self._poll(1_000, 0)
            quiet = quiet + 1 if answered and before == self.cursor else 0
            if quiet == 2:
                return self.problems
            await self._cluster.loop.pass_time(0.02)
        return [*self.problems, "a reader of changes does not come to the end"]

    def _die(self) -> None:
        """It forgets what it had not acknowledged: the newest changes of some shards come once more."""
        for shard, marks in self._marks.items():
            if marks and self._draw.random() < 0.5:
                at = self._draw.randrange(len(marks))
                self.cursor[shard], kept = marks[at]
                del marks[at + 1 :], self.told[shard][kept:]

    async def _poll(self, weight_max: int, wait_ms: int) -> bool:
        gateways = self._cluster.gateways
        if not gateways:
            return False
        body = [TIMELINE, [list(place) for place in self.cursor.items()], weight_max, wait_ms]
        item = [int(Verb.READ_CHANGES), -1, 0, 1, [], body]
        replies = await self._draw.choice(gateways).call([item], 2_000, mutating=False)
        if replies is None or replies[0] is None or replies[0][0] != OK:
            return False
        result, _, _, _, _, shards, resync = replies[0][2]
        if result not in (WHOLE, TOO_OLD):
            self.problems.append(f"a reader of changes is told {result} for its own journal: {self.cursor}")
            return False
        for shard, upto, packed, _ in shards:
            self._take(shard, upto, [row for chunk in packed for row in msgpack.unpackb(chunk, use_list=True)])
        for shard, _ in resync:
            self.anew.add(shard)
            self.told[shard].clear()
            self._marks[shard].clear()
            self.cursor[shard] = FROM_OLDEST
        return True

    def _take(self, shard: int, upto: int, rows: list[Sequence[Any]]) -> None:
        after = self.cursor[shard]
        for row in rows:
            if not after < row[1] <= upto:
                self.problems.append(f"shard {shard}: a change of {row[1]} is told after {after} and up to {upto}")
            if row[0] == AVAILABILITY and row[6] < row[1]:
                self.problems.append(f"shard {shard}: a change of {row[1]} has a value that had seen {row[6]}")
        self.told[shard] += rows
        self.cursor[shard] = max(upto, after)
        self._marks[shard].append((self.cursor[shard], len(self.told[shard])))

    def judge(self, store: MemoryStore, available: dict[str, int]) -> Iterator[str]:
        """Against every record, and against what stands there at the end: ``available`` by stock key."""
        yield from self.problems
        last: dict[str, int] = {}
        for shard, rows in self.told.items():
            expected = list(changes(store, shard))
            told = [(row[0], row[1], row[4] if row[0] == RESERVATION else row[3]) for row in rows]
            if shard in self.anew and told:
                expected = [one for one in expected if one[1] >= told[0][1]]
            if told != expected and not (shard in self.anew and not told):
                wrong = next((pair for pair in zip(told, expected, strict=False) if pair[0] != pair[1]), None)
                text = f"{len(told)} changes were told and {len(expected)} are in the journal; the first other one: {wrong}"
                yield f"shard {shard}: {text}"
            last |= {row[3]: row[4] for row in rows if row[0] == AVAILABILITY}
        for key, units in available.items():
            if key in last and last[key] != units:
                parts = split_stock_key(key)
                yield f"the last change of {parts.sku} in {parts.warehouse_id} says {last[key]}; {units} are available"


def changes(store: MemoryStore, shard: int) -> Iterator[Named]:
    """What a reader must be told of a shard."""
    for record, _ in store.records.get(shard, []):
        touched: dict[str, int] = {}
        found: list[Named] = []
        sequence = record.first_sequence
        for _, events in decode_groups(record.payload):
            for event in events:
                if event[0] in TOUCHING:
                    touched[event[1]] = sequence
                elif event[0] in OF_RESERVATIONS:
                    found.append((RESERVATION, sequence, event[1]))
                elif event[0] in OF_WAREHOUSES:
                    found.append((WAREHOUSE, sequence, event[2]))
                sequence += 1
        found += [(AVAILABILITY, at, key) for key, at in touched.items()]
        yield from sorted(found, key=lambda one: one[1])
