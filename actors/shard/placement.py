"""Which shard a stock key lives in, and a source's feeds. Fixed for the life of a cluster; golden values are kept by a test.

``shard = (H(warehouse) + H(sku) mod 8) mod shards`` with H = BLAKE2b-64 (big-endian) over length-prefixed UTF-8 parts that
start with the owner. So the stock of one warehouse lies in 8 neighbouring shards, which the directory keeps on one host
while load allows, and an order from one warehouse is one commit.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from actors.domain.keys import split_stock_key

PLACEMENT_VERSION = 1
SHARD_COUNT_DEFAULT = 64
SHARD_COUNT_MAX = 4096
SHARDS_PER_WAREHOUSE = 8


def placement_hash(*parts: str) -> int:
    """BLAKE2b-64 over the parts, each preceded by its length in bytes as u32 big-endian."""
    digest = blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "big")


def shard_of(key: str, shard_count: int = SHARD_COUNT_DEFAULT) -> int:
    """The shard of a stock key, 0 ≤ shard < shard_count. Raises ValueError when ``key`` is not a stock key."""
    owner_id, warehouse_id, sku = split_stock_key(key)
    spread = placement_hash(owner_id, sku) % SHARDS_PER_WAREHOUSE
    return (placement_hash(owner_id, warehouse_id) + spread) % shard_count


@lru_cache(maxsize=4096)
def consumer_shard_of(consumer_id: str, shard_count: int = SHARD_COUNT_DEFAULT) -> int:
    """The shard of a consumer of changes: where its place is kept."""
    return placement_hash(consumer_id) % shard_count


@lru_cache(maxsize=4096)
def feed_shard_of(source_id: str, shard_count: int = SHARD_COUNT_DEFAULT) -> int:
    """The shard of a source's feeds: where its events are deduplicated and its sequences are kept."""
    return placement_hash(source_id) % shard_count
