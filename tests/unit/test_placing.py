"""Who should own which shard: balance, neighbours together, nothing moved in vain."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from actors.domain.keys import stock_key
from actors.shard.placement import shard_of
from actors.shard.placing import adoptions, bonds_of, next_move, parted

SHARDS = 64


class Table:
    """Hosts with their shards, as the directory would act on the policy."""

    def __init__(
        self, *host_ids: str, loads: dict[int, int] | None = None, bonds: dict[int, float] | None = None
    ) -> None:
        self.loads = loads or dict.fromkeys(range(SHARDS), 0)
        self.bonds = bonds
        self.hosts: dict[str, set[int]] = {host_id: set() for host_id in host_ids}
        self.moves: list[tuple[int, str, str]] = []
        self.adopt()

    def known(self) -> dict[str, dict[int, int]]:
        return {host_id: {shard: self.loads[shard] for shard in shards} for host_id, shards in self.hosts.items()}

    def adopt(self) -> dict[int, str]:
        orphans = {shard: self.loads[shard] for shard in range(SHARDS)}
        for shards in self.hosts.values():
            for shard in shards:
                del orphans[shard]
        given = adoptions(orphans, self.known(), bonds=self.bonds)
        assert given.keys() == orphans.keys()
        for shard, host_id in given.items():
            self.hosts[host_id].add(shard)
        return given

    def die(self, host_id: str) -> dict[int, str]:
        before = {other: set(shards) for other, shards in self.hosts.items()}
        lost = self.hosts.pop(host_id)
        given = self.adopt()
        assert given.keys() == lost
        for other, shards in self.hosts.items():
            assert before[other] <= shards, "who lives keeps what he has"
        return given

    def settle(self, *draining: str, most: int = 200) -> int:
        for count in range(most):
            move = next_move(self.known(), draining, bonds=self.bonds)
            if move is None:
                return count
            shard, source, target = move
            self.hosts[source].remove(shard)
            self.hosts[target].add(shard)
            self.moves.append(move)
        raise AssertionError("moving does not end")

    @property
    def owners(self) -> dict[int, str]:
        return {shard: host_id for host_id, shards in self.hosts.items() for shard in shards}

    @property
    def counts(self) -> list[int]:
        return sorted(len(shards) for shards in self.hosts.values())

    @property
    def weights(self) -> list[float]:
        total = sum(self.loads.values())
        return sorted(sum(1 + self.loads[shard] * SHARDS / total for shard in shards) for shards in self.hosts.values())


@pytest.mark.parametrize("count", range(1, 9))
def test_a_first_distribution_is_even_and_in_one_piece_each(count):
    table = Table(*(f"h{number}" for number in range(count)))
    assert table.counts[-1] - table.counts[0] <= 1
    assert parted(table.owners) <= 2 * count
    assert table.settle() == 0


@pytest.mark.parametrize("count", range(1, 8))
def test_one_that_joins_gets_its_share_and_nothing_else_moves(count):
    table = Table(*(f"h{number}" for number in range(count)))
    before = parted(table.owners)
    table.hosts["new"] = set()
    table.settle()
    assert table.counts[-1] - table.counts[0] <= 1
    assert {target for _, _, target in table.moves} == {"new"}
    assert len(table.moves) == SHARDS // (count + 1)
    assert parted(table.owners) <= before + count + 2


def test_the_dead_ones_shards_go_to_the_living_who_keep_theirs():
    table = Table("a", "b", "c")
    table.die("b")
    assert table.counts == [32, 32]
    assert table.settle() == 0
    assert parted(table.owners) <= 4


def test_the_last_one_gets_everything():
    table = Table("a", "b", "c")
    table.die("a")
    table.die("b")
    assert table.counts == [64]


def test_nobody_left_gets_nothing():
    assert adoptions([1, 2], {}) == {}
    assert next_move({}) is None
    assert next_move({"a": {}, "b": {}}) is None
    assert next_move({"a": {1: 0}}, ["a"]) is None


def test_one_that_drains_gives_everything_away():
    table = Table("a", "b", "c")
    table.settle("b")
    assert table.hosts["b"] == set()
    assert len(table.moves) in (21, 22)
    assert table.counts == [0, 32, 32]


def test_a_warehouse_stays_in_one_place_where_its_neighbours_may_be_parted_elsewhere():
    warehouses = ["main", "north"]
    bonds = bonds_of(warehouses)
    table = Table("a", "b", "c", bonds=bonds)
    table.hosts["d"] = set()
    table.settle()
    for warehouse_id in warehouses:
        shards = {shard_of(stock_key(warehouse_id, f"S{number}"), SHARDS) for number in range(200)}
        assert len(shards) == 8
        assert len({table.owners[shard] for shard in shards}) == 1, (warehouse_id, shards, table.hosts)


def test_bonds_are_between_the_shards_of_a_warehouse():
    bonds = bonds_of(["main"])
    shards = sorted({shard_of(stock_key("main", f"S{number}"), SHARDS) for number in range(200)})
    assert sorted(bonds) == shards[:-1]


@pytest.mark.parametrize("round_number", range(40))
def test_whatever_happens_hosts_end_near_each_other_and_moving_ends(seed, round_number):
    draw = random.Random(seed + round_number)
    loads = {shard: int(draw.expovariate(1 / 1_000)) for shard in range(SHARDS)}
    table = Table("h0", loads=loads, bonds=draw.choice((None, bonds_of(["main", "north", "x", "y"]))))
    for number in range(1, 12):
        if len(table.hosts) > 1 and draw.random() < 0.4:
            table.die(draw.choice(sorted(table.hosts)))
        elif len(table.hosts) > 1 and draw.random() < 0.3:
            leaving = draw.choice(sorted(table.hosts))
            table.settle(leaving, most=500)
            assert not table.hosts.pop(leaving)
        else:
            table.hosts[f"h{number}"] = set()
        for shard in draw.sample(range(SHARDS), 8):
            table.loads[shard] = int(draw.expovariate(1 / 1_000))
        table.moves.clear()
        table.settle()
        assert sorted(table.owners) == list(range(SHARDS))
        moved = Counter(shard for shard, _, _ in table.moves)
        heaviest = max(1 + load * SHARDS / sum(table.loads.values()) for load in table.loads.values())
        fair = sum(table.weights) / len(table.hosts)
        slack = 0.1 if table.bonds is None else 0.5  # a warehouse stays together while load allows
        assert table.weights[-1] - table.weights[0] <= heaviest + slack * fair + 1e-9
        assert len(table.moves) <= SHARDS, moved
