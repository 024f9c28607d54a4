"""Which host should run a shard. Pure: what is known of hosts in, shard numbers out.

Warehouses lie in neighbouring shards, so neighbours stay together: what nobody owns is handed out in runs, and a move
takes a shard from the edge of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["adoptions", "next_move"]

RUN_SHARDS_MAX = 8  # of one warehouse

Loads = Mapping[str, Mapping[int, int]]  # host → shard → load


def adoptions(orphans: Sequence[int], loads: Loads) -> dict[int, str]:
    """Shard → host for shards that nobody owns; hosts that have fewest first, neighbours together."""
    count = {host_id: len(shards) for host_id, shards in loads.items()}
    wanted: dict[int, str] = {}
    for run in runs_of(sorted(orphans)):
        host_id = min(count, key=lambda one: (count[one], one))
        count[host_id] += len(run)
        wanted.update(dict.fromkeys(run, host_id))
    return wanted


def runs_of(shards: Sequence[int]) -> list[list[int]]:
    """Neighbours together, at most a warehouse's worth."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][-1] + 1 and len(runs[-1]) < RUN_SHARDS_MAX and shard % RUN_SHARDS_MAX:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return runs


def next_move(loads: Loads, draining: Collection[str]) -> tuple[int, str, str] | None:
    """(shard, from, to): the next step towards hosts with equally many shards, and none on draining ones. None when
    there is nothing to do."""
    targets = {host_id: len(shards) for host_id, shards in loads.items() if host_id not in draining}
    if not targets:
        return None
    target = min(targets, key=lambda one: (targets[one], one))
    for host_id in sorted(draining):
        if loads.get(host_id):
            return min(loads[host_id]), host_id, target
    source = max(targets, key=lambda one: (targets[one], one))
    if targets[source] - targets[target] <= 1:
        return None
    return pick(loads[source], loads[target]), source, target


def pick(have: Mapping[int, int], theirs: Mapping[int, int]) -> int:
    """A shard beside what the target has, else one from the end of a run."""
    beside = [shard for shard in have if shard - 1 in theirs or shard + 1 in theirs]
    if beside:
        return min(beside, key=lambda shard: ((shard - 1 in have) + (shard + 1 in have), shard))
    return max(have, key=lambda shard: (-((shard - 1 in have) + (shard + 1 in have)), shard))
