"""Who should own which shard. Pure: what is known of hosts in, shard numbers out; the directory acts on it.

Neighbouring shards hold one warehouse's stock (``placement``), so neighbours stay together: of all shards that may be given to
a host, it gets the one that leaves the fewest neighbours parted. Load comes first: a shard weighs half by being one and half by
what it holds, whoever is to get more is the host with least, and a shard moves only where that brings the two hosts nearer by
more than a little. Each move makes the sum of the squares of the hosts' weights smaller, so moving ends; and a host that joins
gets its share from the heaviest, one shard after the other, while nothing moves between the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from actors.domain.keys import stock_key
from actors.shard.placement import SHARD_COUNT_DEFAULT, SHARDS_PER_WAREHOUSE, placement_hash

__all__ = ["Bonds", "Loads", "adoptions", "bonds_of", "next_move", "parted"]

SLACK = 0.1  # of a host's fair share: so much apart is near enough
SLACK_TOGETHER = 0.5  # and so much, before a warehouse is parted that need not be
BORDER_SHIFT_MAX = 2  # shards that a border may lie beside its fair place, where it parts no warehouse then

Loads = Mapping[str, Mapping[int, int]]  # host → shard → load, in any unit
Bonds = Mapping[int, float]  # shard → what it costs when its successor is elsewhere


def bonds_of(warehouse_ids: Iterable[str], shard_count: int = SHARD_COUNT_DEFAULT) -> dict[int, float]:
    """Which neighbours hold stock of the same warehouses, and of how many."""
    bonds: dict[int, float] = {}
    for warehouse_id in warehouse_ids:
        first = _first_shard(warehouse_id, shard_count)
        for place in range(SHARDS_PER_WAREHOUSE - 1):
            shard = (first + place) % shard_count
            bonds[shard] = bonds.get(shard, 0.0) + 1.0
    return bonds


def _first_shard(warehouse_id: str, shard_count: int) -> int:
    owner_id = stock_key(warehouse_id, "").split("\x1f")[0]
    return placement_hash(owner_id, warehouse_id) % shard_count


def adoptions(
    orphans: Sequence[int] | Mapping[int, int],
    loads: Loads,
    *,
    shard_count: int = SHARD_COUNT_DEFAULT,
    bonds: Bonds | None = None,
) -> dict[int, str]:
    """Shard → host for shards that nobody owns (as a mapping: to the load that each had). Nothing else changes hands."""
    if not loads:
        return {}
    known = dict(orphans) if isinstance(orphans, Mapping) else dict.fromkeys(orphans, 0)
    table = _Table(loads, shard_count, bonds, known)
    room = _room(table.weights, sum(map(table.weight, known)))
    wanted: dict[int, str] = {}
    for run in _runs(known, shard_count):
        before = table.owner((run[0] - 1) % shard_count)
        after = table.owner((run[-1] + 1) % shard_count)
        middle = sorted((one for one in room if one not in (before, after)), key=lambda one: (-room[one], one))
        order = [before] * (before in room) + middle + [after] * (after in room and after != before)
        wanted |= _divided(table, run, order, room)
    return wanted


def _room(weights: Mapping[str, float], coming: float) -> dict[str, float]:
    """How much each host gets, so that those who have least are filled up to the same level."""
    level = 0.0
    lightest = sorted(weights.values())
    for count in range(1, len(lightest) + 1):
        level = (sum(lightest[:count]) + coming) / count
        if count == len(lightest) or level <= lightest[count]:
            break
    return {host_id: max(0.0, level - weight) for host_id, weight in weights.items()}


def _runs(shards: Collection[int], shard_count: int) -> list[list[int]]:
    """Neighbours together, the last one of all being a neighbour of the first."""
    runs: list[list[int]] = []
    for shard in sorted(shards):
        if runs and runs[-1][-1] == shard - 1:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    if len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == shard_count - 1:
        runs[0] = runs.pop() + runs[0]
    return runs


def _divided(table: _Table, run: list[int], order: list[str], room: dict[str, float]) -> dict[int, str]:
    """A run in pieces, one a host, in that order and as large as each has room."""
    wanted: dict[int, str] = {}
    start, passed, upto = 0, 0.0, 0.0
    place = 0
    for number, host_id in enumerate(order):
        upto += room[host_id]
        last = number == len(order) - 1
        while place < len(run) and (last or passed + table.weight(run[place]) / 2 < upto):
            passed += table.weight(run[place])
            place += 1
        end = place if last else max(start, table.border(run, place))
        for shard in run[start:end]:
            wanted[shard] = host_id
            room[host_id] = max(0.0, room[host_id] - table.weight(shard))
        start = end
    return wanted


def next_move(
    loads: Loads,
    draining: Collection[str] = (),
    *,
    shard_count: int = SHARD_COUNT_DEFAULT,
    bonds: Bonds | None = None,
) -> tuple[int, str, str] | None:
    """(shard, from, to): the next step towards hosts that weigh alike, and none on draining ones. None: nothing is to be done."""
    table = _Table(loads, shard_count, bonds)
    takers = [host_id for host_id in loads if host_id not in draining]
    if not takers:
        return None
    target = min(takers, key=lambda one: (table.weights[one], one))
    for host_id in sorted(draining):
        if loads.get(host_id):
            return table.best(target, loads[host_id]), host_id, target
    source = max(takers, key=lambda one: (table.weights[one], one))
    share = sum(table.weights.values()) / len(takers)
    gap = table.weights[source] - table.weights[target]
    slack = 0.0 if table.loadless else SLACK * share
    movable = [
        shard
        for shard in loads[source]
        if table.weight(shard) < gap - (SLACK_TOGETHER * share if table.parts(shard, target) else slack)
    ]
    return (table.best(target, movable), source, target) if movable else None


def parted(owners: Mapping[int, str], shard_count: int = SHARD_COUNT_DEFAULT, bonds: Bonds | None = None) -> float:
    """What it costs that neighbours are at different hosts: how many are parted, or what that means to their warehouses."""
    return sum(
        _bond(bonds, shard) for shard in owners if owners.get((shard + 1) % shard_count, owners[shard]) != owners[shard]
    )


def _bond(bonds: Bonds | None, shard: int) -> float:
    # also where no warehouse is known to lie: one may come
    return 1.0 if bonds is None else 0.01 + bonds.get(shard, 0.0)


class _Table:
    """Who has what, and how heavy everybody is."""

    def __init__(
        self, loads: Loads, shard_count: int, bonds: Bonds | None, orphans: Mapping[int, int] | None = None
    ) -> None:
        self._shard_count = shard_count
        self._bonds = bonds
        self._owners = {shard: host_id for host_id, shards in loads.items() for shard in shards}
        self._loads = {shard: load for shards in loads.values() for shard, load in shards.items()} | dict(orphans or {})
        total = sum(self._loads.values())
        self.loadless = total <= len(self._loads)  # nothing is known of loads, or hardly anything: shards are counted
        self._by_load = 0.0 if self.loadless else len(self._loads) / total  # so that an average load weighs 1
        self.weights = {host_id: sum(self.weight(shard) for shard in shards) for host_id, shards in loads.items()}

    def weight(self, shard: int) -> float:
        """1 for being a shard, and 1 for an average load."""
        return 1.0 + self._loads[shard] * self._by_load

    def best(self, host_id: str, shards: Collection[int]) -> int:
        """Of these, the one that parts the fewest neighbours when this host gets it."""
        return min(shards, key=lambda shard: (self._costs(shard, host_id), shard))

    def _costs(self, shard: int, host_id: str) -> float:
        """How much more is parted when the shard is at that host instead of where it is."""
        now, more = self._owners[shard], 0.0
        for neighbour, first in ((shard - 1, shard - 1), (shard + 1, shard)):
            owner = self._owners.get(neighbour % self._shard_count)
            if owner is not None:
                more += _bond(self._bonds, first % self._shard_count) * ((owner != host_id) - (owner != now))
        return more

    def owner(self, shard: int) -> str:
        """Who has it; empty: nobody."""
        return self._owners.get(shard, "")

    def parts(self, shard: int, host_id: str) -> bool:
        """Whether a warehouse is parted when the shard goes to that host, more than any border parts some."""
        if self._bonds is None:
            return False
        usual = 1.5 * sum(self._bonds.values()) / self._shard_count
        return self._costs(shard, host_id) > usual + 0.1

    def border(self, run: Sequence[int], place: int) -> int:
        """Where to part a run near a place, with the least harm."""
        if self._bonds is None:
            return place
        near = range(max(1, place - BORDER_SHIFT_MAX), min(len(run) - 1, place + BORDER_SHIFT_MAX) + 1)
        found: int = min((*near, place), key=lambda one: (self._harm(run, one), abs(one - place)))
        return found

    def _harm(self, run: Sequence[int], place: int) -> float:
        return _bond(self._bonds, run[place - 1]) if 0 < place < len(run) else 0.0
