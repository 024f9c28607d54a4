"""Shards: the sans-IO engine, recovery, snapshots, placement, and the async shell around them."""
