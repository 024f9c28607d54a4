"""What all servicers share: settings, known names, metrics, and how a shard is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from actors.domain.answers import ERROR, OK, REFUSED
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason, RefusalReason
from actors.shard.directory import Overseer
from actors.shard.messages import ANY_SHARD
from gateway.changes.hub import ChangeHub
from gateway.changes.view import AvailabilityView
from gateway.config import RETRY_HINT_OVERLOADED_MS, RETRY_HINT_UNAVAILABLE_MS, GatewayConfig
from gateway.errors import CallFailed, Violation, failure_of, invalid
from gateway.metrics import Metrics
from gateway.paging import read_token, write_token
from gateway.rpc import Rpc
from gateway.translate.reservations import wire_size
from gateway.validation import Findings, KnownNames

Item = list[Any]
REFUSAL_NAMES = {int(reason): reason.name.lower() for reason in RefusalReason}
ERROR_NAMES = {int(reason): reason.name.lower() for reason in ErrorReason}
VERB_NAMES = {int(verb): verb.name.lower() for verb in Verb}


# The first element of a pseudo reply (FAILED, CallFailed): an item that never left because it was bad.
FAILED = -1


class Hosts(Protocol):
    """The way to the shard hosts: ``gateway.links.HostLinks``, or a stand-in that answers by itself."""

    @property
    def timeline(self) -> str: ...

    @property
    def cluster_id(self) -> str: ...

    @property
    def saturated(self) -> bool: ...

    def host_ids(self) -> list[str]: ...

    async def ask(
        self, items: list[Item], *, deadline: int, size: int, weight: int, mutating: bool, host_id: str = ""
    ) -> Sequence[Any]: ...


class Desk:
    """Shared by the servicers of one gateway."""

    def __init__(self, config: GatewayConfig, names: KnownNames, hosts: Hosts, metrics: Metrics) -> None:
        self.config = config
        self.names = names
        self.hosts = hosts
        self.metrics = metrics
        self.changes = ChangeHub(
            token=config.cluster_token,
            name=config.name,
            now=_now_ms,
        )
        self.view = AvailabilityView(self.changes, _now_ms)
        self.overseer: Overseer | None = None  # the directory of several hosts, when there are several
        self.closing = asyncio.Event()  # set when the gateway stops: streams end, their callers go elsewhere

    def open(self) -> None:
        """The first thing of each method. Raises CallFailed when no shard host has been found yet, or too much waits
        already: then nothing is spent on reading the request.
        """
        self.names.require_shards()
        if self.hosts.saturated:
            raise CallFailed(ErrorReason.OVERLOADED, retry_after_ms=RETRY_HINT_OVERLOADED_MS)

    async def change(self, item: Item, rpc: Rpc, request_bytes: int) -> Sequence[Any]:
        """Ask for one command; its reply is OK or REFUSED. Raises CallFailed for an ERROR."""
        config = self.config
        weight = item[3]
        (reply,) = await self.hosts.ask(
            [item],
            deadline=rpc.deadline(config.deadline_default_ms, config.deadline_mutation_ms_max),
            size=wire_size(request_bytes, 1, weight, item[4]),
            weight=weight,
            mutating=True,
        )
        status = reply[0]
        verb = VERB_NAMES[item[0]]
        if status == OK:
            self.metrics.decided(verb, "granted" if item[0] == Verb.RESERVE else "done")
        elif status == REFUSED:
            self.metrics.decided(verb, REFUSAL_NAMES.get(reply[2][0], "refused"))
        else:
            self.metrics.decided(verb, ERROR_NAMES.get(reply[1], "error"))
            raise failure_of(reply)
        rpc.replayed = reply[1]
        return reply  # type: ignore[no-any-return]

    async def change_many(self, items: list[Item], rpc: Rpc, request_bytes: int) -> Sequence[Any]:
        """Ask for many commands; one reply each, in order, ERRORs among them."""
        if not items:
            return ()
        config = self.config
        weight = sum(item[3] for item in items)
        if weight > config.lines_per_call_max:
            raise invalid(
                [Violation("", f"the call has {weight} lines in all; at most {config.lines_per_call_max} are accepted")]
            )
        return await self.hosts.ask(
            items,
            deadline=rpc.deadline(config.deadline_default_ms, config.deadline_mutation_ms_max),
            size=wire_size(request_bytes, len(items), weight, items[0][4]),
            weight=weight,
            mutating=True,
        )

    async def read(
        self, items: list[Item], rpc: Rpc, request_bytes: int, *, host_id: str = "", deadline_ms_max: int = 0
    ) -> list[Sequence[Any]]:
        """Ask questions; the payloads of the replies, in order. Raises CallFailed for the first ERROR."""
        config = self.config
        weight = sum(item[3] for item in items)
        replies = await self.hosts.ask(
            items,
            deadline=rpc.deadline(config.deadline_default_ms, deadline_ms_max or config.deadline_read_ms_max),
            size=wire_size(request_bytes, len(items), weight, items[0][4]),
            weight=weight,
            mutating=False,
            host_id=host_id,
        )
        for reply in replies:
            if reply[0] == ERROR:
                raise failure_of(reply)
        return [reply[2] for reply in replies]

    async def ask_now(self, items: list[Item]) -> list[Sequence[Any]]:
        """Ask questions for a stream, whose own deadline is far: the payloads, in order. Raises CallFailed."""
        return await self.read(items, Rpc(_now_ms(), None), 64 * len(items))

    async def changes_ready(self) -> None:
        """Wait until the change feed of every shard is followed. Raises CallFailed when that takes too long."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.config.route_patience_ms / 1000
        while not self.changes.ready:
            if loop.time() >= end_s or self.closing.is_set():
                raise CallFailed(
                    ErrorReason.SHARD_UNAVAILABLE, "no host tells changes now", retry_after_ms=RETRY_HINT_UNAVAILABLE_MS
                )
            await self.changes.wait(0.05)

    async def page(  # noqa: PLR0913  what a page depends on
        self,
        verb: Verb,
        rpc: Rpc,
        *,
        filters: list[Any],
        page_size: int,
        page_token: str,
        findings: Findings,
        filters_after: Sequence[Any] = (),
    ) -> tuple[list[Sequence[Any]], str]:
        """One page of a list over all hosts, and the next page's token. Raises CallFailed for findings too.

        ``filters_after``: those that the command has after the page, sent only when one is set, as older hosts do not know them.
        """
        asked = filters + list(filters_after) if any(filters_after) else filters
        at_host, at_token = read_token(page_token, asked, findings)
        check(findings)
        hosts = [host_id for host_id in self.hosts.host_ids() if host_id >= at_host]
        found: list[Sequence[Any]] = []
        for host_id in hosts:
            token = at_token if host_id == at_host else ""
            size = page_size - len(found)
            item = [int(verb), ANY_SHARD, 0, max(1, size), rpc.cause, [*filters, size, token, *asked[len(filters) :]]]
            (payload,) = await self.read([item], rpc, 256, host_id=host_id)
            views, next_token = payload[:2]
            found.extend(views)
            if next_token:
                return found, write_token(host_id, next_token, asked)
            if len(found) >= page_size:
                later = [other for other in hosts if other > host_id]
                return found, write_token(later[0], "", asked) if later else ""
        return found, ""


def _now_ms() -> int:
    """Milliseconds of the loop's monotonic clock."""
    return int(asyncio.get_running_loop().time() * 1000)


def check(findings: Findings, prefix: str = "") -> None:
    """Raises CallFailed INVALID_FIELD when something was found."""
    if findings:
        raise failed_check(findings, prefix)


def failed_check(findings: Findings, prefix: str = "") -> CallFailed:
    """The failure that names every finding. ``prefix``: where in a batch the request was."""
    if not prefix:
        return invalid(findings)
    return invalid([Violation(f"{prefix}{each.field}", each.description) for each in findings])


def with_failures(replies: Sequence[Any], failed: dict[int, CallFailed]) -> Sequence[Any]:
    """Replies of the good items with the bad ones' failures at their places (by index), as (FAILED, failure)."""
    if not failed:
        return replies
    rest = iter(replies)
    count = len(replies) + len(failed)
    return [(FAILED, failed[index]) if index in failed else next(rest) for index in range(count)]
