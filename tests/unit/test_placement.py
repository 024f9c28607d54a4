"""Placement can never change: a key that moves to another shard is lost to everything that was journaled for it.

The golden values were computed by a second, separate implementation of the formula. When one of them fails, the code is
wrong, not the value.
"""

from __future__ import annotations

import pytest

from actors.domain.keys import stock_key
from actors.shard.placement import PLACEMENT_VERSION, SHARD_COUNT_DEFAULT, placement_hash, shard_of

GOLDEN_SHARDS = [
    # owner, warehouse, sku, of 16 shards, of 64, of 4096
    ("", "main", "SKU-1", 9, 25, 2777),
    ("", "main", "SKU-2", 7, 23, 2775),
    ("", "main", "85123A", 10, 26, 2778),
    ("", "overflow", "SKU-1", 2, 34, 1250),
    ("", "DC-NORTH", "22423", 12, 28, 3548),
    ("", "Zürich", "Kaffee-1 kg", 1, 49, 2801),
    ("", "倉庫", "商品", 15, 47, 559),
    ("acme", "main", "SKU-1", 9, 57, 2873),
    ("", "a", "b", 1, 49, 49),
    ("", "m", "ainSKU-1", 0, 16, 1296),
]

GOLDEN_HASHES = [
    (("", "main"), 8880953897419741907),
    (("", "SKU-1"), 17996735358455815430),
    ((), 16476032584258269876),
    (("",), 5657698912149702814),
]


def test_placement_is_still_version_one_over_64_shards():
    assert (PLACEMENT_VERSION, SHARD_COUNT_DEFAULT) == (1, 64)


@pytest.mark.parametrize(("owner", "warehouse", "sku", "of_16", "of_64", "of_4096"), GOLDEN_SHARDS)
def test_a_stock_key_stays_in_its_shard_for_ever(owner, warehouse, sku, of_16, of_64, of_4096):
    key = stock_key(warehouse, sku, owner)

    assert shard_of(key) == of_64
    assert [shard_of(key, count) for count in (16, 64, 4096)] == [of_16, of_64, of_4096]


@pytest.mark.parametrize(("parts", "value"), GOLDEN_HASHES)
def test_the_hash_stays_what_it_is(parts, value):
    assert placement_hash(*parts) == value


def test_parts_cannot_be_shifted_into_each_other():
    assert placement_hash("ab", "c") != placement_hash("a", "bc")


def test_a_warehouse_lies_in_eight_neighbouring_shards():
    for warehouse in ("main", "overflow", "DC-NORTH", "倉庫"):
        first = placement_hash("", warehouse) % SHARD_COUNT_DEFAULT

        used = {shard_of(stock_key(warehouse, f"SKU-{number}")) for number in range(500)}

        assert used == {(first + step) % SHARD_COUNT_DEFAULT for step in range(8)}


def test_many_warehouses_fill_every_shard_evenly():
    load = [0] * SHARD_COUNT_DEFAULT
    for warehouse in range(1_000):
        for sku in range(20):
            load[shard_of(stock_key(f"W{warehouse}", f"SKU-{sku}"))] += 1

    mean = sum(load) / SHARD_COUNT_DEFAULT
    assert min(load) > 0.6 * mean, load
    assert max(load) < 1.5 * mean, load


@pytest.mark.parametrize("text", ["", "main", "main\x1fSKU-1", "a\x1fb\x1fc\x1fd"])
def test_what_is_not_a_stock_key_has_no_shard(text):
    with pytest.raises(ValueError, match="unpack"):
        shard_of(text)
