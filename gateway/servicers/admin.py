"""AdminService: how the cluster is, put together from what each host says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.shard.messages import ANY_SHARD
from gateway.errors import CallFailed, Violation, invalid
from gateway.rpc import Rpc
from gateway.servicers.desk import Desk
from stockade.v1 import admin_service_pb2 as pb

log = logging.getLogger(__name__)

STATUS_MS_MAX = 2_000  # a host that does not answer by then is shown as unreachable


class AdminService:
    """See ``protos/stockade/v1/admin_service.proto``. For operators."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetClusterStatus(self, request: pb.GetClusterStatusRequest, rpc: Rpc) -> pb.GetClusterStatusResponse:
        rpc.principal.require_operator()
        desk = self._desk
        desk.names.require_shards()
        overview = await self._overview()
        seen = {str(host["host_id"]): host for host in overview.get("hosts", ())}
        host_ids = sorted({*desk.hosts.host_ids(), *seen})
        answers = await asyncio.gather(*(self._host(host_id, rpc) for host_id in host_ids))
        status = pb.ClusterStatus(
            cluster_id=desk.hosts.cluster_id,
            timeline=desk.hosts.timeline,
            version=desk.config.version,
            shard_count=desk.names.shard_count,
        )
        for host_id, said in zip(host_ids, answers, strict=True):
            _add_host(status, host_id, said, seen.get(host_id, {}))
        _add_shards_on_their_way(status, overview)
        status.shards.sort(key=lambda shard: shard.shard)
        return pb.GetClusterStatusResponse(cluster_status=status)

    async def DrainHost(self, request: pb.DrainHostRequest, rpc: Rpc) -> pb.DrainHostResponse:
        rpc.principal.require_operator()
        overseer = self._desk.overseer
        if overseer is None:
            raise bad_host("this is a node of its own: there is no other host that could take its shards")
        overview = await self._overview()
        known = {str(host["host_id"]): host for host in overview.get("hosts", ())}
        if request.host_id not in known:
            there_are = (
                f"the hosts are {', '.join(sorted(known))}" if known else "the directory does not answer, try again"
            )
            raise bad_host(f"there is no host {request.host_id!r}; {there_are}")
        others = [one for one in known.values() if one["host_id"] != request.host_id and one["state"] == "serving"]
        if not request.undo and not others:
            raise bad_host(f"no other host serves that could take the shards of {request.host_id}")
        try:
            await overseer.drain(request.host_id, drain=not request.undo)
        except Exception as error:  # whatever its transport raises, it is away
            raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, f"the directory does not answer: {error}") from error
        return pb.DrainHostResponse(shards=known[request.host_id]["shards"])

    async def _overview(self) -> Mapping[str, Any]:
        """What the directory of several hosts knows; nothing when there is none, or while it is away."""
        overseer = self._desk.overseer
        if overseer is None:
            return {}
        try:
            return await overseer.overview()
        except Exception as error:  # whatever its transport raises, it is away
            log.info("the directory does not answer: %r", error)
            return {}

    async def _host(self, host_id: str, rpc: Rpc) -> Mapping[str, Any]:
        """What a host says of itself; nothing when it does not answer."""
        item = [int(Verb.GET_HOST_STATUS), ANY_SHARD, 0, 1, rpc.cause, []]
        try:
            (payload,) = await self._desk.read([item], rpc, 16, host_id=host_id, deadline_ms_max=STATUS_MS_MAX)
        except CallFailed:
            return {}
        said: Mapping[str, Any] = payload[0]
        return said


def bad_host(description: str) -> CallFailed:
    """What is wrong with the host that was named, and which there are."""
    return invalid([Violation("host_id", description)])


def _state(said: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    if said:
        return "draining" if seen.get("draining") else str(said["state"])
    return "dead" if seen.get("state") == "dead" else "unreachable"


def _add_shards_on_their_way(status: pb.ClusterStatus, overview: Mapping[str, Any]) -> None:
    if move := overview.get("move"):
        status.shards_on_their_way.add(shard=move[0], from_host_id=move[1], to_host_id=move[2])
    for shard, host_id in overview.get("adopting", {}).items():
        status.shards_on_their_way.add(shard=int(shard), to_host_id=host_id)


def _add_host(status: pb.ClusterStatus, host_id: str, said: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """``said``: by the host itself; ``seen``: by the directory."""
    shards = said.get("shards", ())
    status.hosts.add(
        host_id=host_id,
        endpoint=said.get("endpoint", seen.get("endpoint", "")),
        pid=said.get("pid", seen.get("pid", 0)),
        state=_state(said, seen),
        shards=len(shards),
        accepts_claims=said.get("accepts_claims", False),
        node_id=seen.get("node_id", ""),
        draining=seen.get("draining", False),
        silent_ms=seen.get("silent_ms", 0),
        clock_skew_ms=seen.get("clock_skew_ms", 0),
        queue_lines=said.get("queue_lines", 0),
        clock_skews_ms=dict(said.get("clock_skews", ())),
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
            host_id=host_id,
        )
    status.oversells += said.get("oversells", 0)
    status.shortage_units += said.get("shortage_units", 0)
    status.imposed_uncovered_units += said.get("imposed_uncovered_units", 0)
    if "journal_kind" in said:
        status.journal.kind = said["journal_kind"]
        status.journal.durability = said["durability"]
        status.journal.size_bytes += said["journal_bytes"]
        status.journal.free_bytes = said["free_bytes"] or 0
