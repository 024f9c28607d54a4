"""AdminService: how the cluster is, put together from what each host says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from actors.domain.commands import Verb
from actors.shard.messages import ANY_SHARD
from gateway.errors import CallFailed
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk
from stockade.v1 import admin_service_pb2 as pb

STATUS_MS_MAX = 2_000  # a host that does not answer by then is shown as unreachable


class AdminService:
    """See ``protos/stockade/v1/admin_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetClusterStatus(self, request: pb.GetClusterStatusRequest, rpc: Rpc) -> pb.GetClusterStatusResponse:
        rpc.principal.require_operator()
        desk = self._desk
        desk.names.require_shards()
        host_ids = desk.hosts.host_ids()
        answers = await asyncio.gather(*(self._host(host_id, rpc) for host_id in host_ids))
        status = pb.ClusterStatus(
            cluster_id=desk.hosts.cluster_id,
            timeline=desk.hosts.timeline,
            version=desk.config.version,
            shard_count=desk.names.shard_count,
        )
        for host_id, said in zip(host_ids, answers, strict=True):
            _add_host(status, host_id, said)
        status.shards.sort(key=lambda shard: shard.shard)
        return pb.GetClusterStatusResponse(cluster_status=status)

    async def _host(self, host_id: str, rpc: Rpc) -> Mapping[str, Any]:
        """What a host says of itself; nothing when it does not answer."""
        item = [int(Verb.GET_HOST_STATUS), ANY_SHARD, 0, 1, rpc.cause, []]
        try:
            (payload,) = await self._desk.read([item], rpc, 16, host_id=host_id, deadline_ms_max=STATUS_MS_MAX)
        except CallFailed:
            return {}
        said: Mapping[str, Any] = payload[0]
        return said


def _add_host(status: pb.ClusterStatus, host_id: str, said: Mapping[str, Any]) -> None:
    shards = said.get("shards", ())
    status.hosts.add(
        host_id=host_id,
        endpoint=said.get("endpoint", ""),
        pid=said.get("pid", 0),
        state=said.get("state", "unreachable"),
        shards=len(shards),
        accepts_claims=said.get("accepts_claims", False),
    )
    for shard in shards:
        status.shards.add(
            shard=shard["shard"],
            epoch=shard["epoch"],
            record_number=shard["record_number"],
            sequence=shard["sequence"],
            stock_actors=shard["stock_actors"],
            reservations=shard["reservations"],
            queue_depth=shard["queue_depth"],
        )
    status.oversells += said.get("oversells", 0)
    status.shortage_units += said.get("shortage_units", 0)
    status.imposed_uncovered_units += said.get("imposed_uncovered_units", 0)
    if "journal_kind" in said:
        status.journal.kind = said["journal_kind"]
        status.journal.durability = said["durability"]
        status.journal.size_bytes += said["journal_bytes"]
        status.journal.free_bytes = said["free_bytes"] or 0
