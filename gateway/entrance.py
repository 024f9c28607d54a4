"""The entrance of a gateway: which calls come in when more arrive than are done, and when those that are sent away come again.

gRPC takes calls from its connections faster than a busy loop takes them from gRPC, and the queue between them is seen by neither
side: left alone it grows until gRPC itself drops calls as CANCELLED, without a word about when to try again. So the queue is looked at
(channelz counts it) while calls come, and when what waits would take too long, part of the calls that come to their turn are
answered RESOURCE_EXHAUSTED before anything is spent on them. Decides for unary calls only; streams have bounds of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # what grpc_channelz itself asks

from actors.domain.outcomes import ErrorReason
from gateway.config import (
    AWAY_MS_MAX,
    AWAY_SHARE,
    ENTRANCE_LOOK_MS,
    RETRY_HINT_OVERLOADED_MS,
    WAITING_CALLS_MIN,
    WAITING_MS_MAX,
)
from gateway.errors import CallFailed

SETTLED = 0.5  # of what may wait is left when calls have been sent away


class Entrance:
    """``inside``: calls in their handlers, streams among them. ``waiting``: how many calls were before it at the last look.

    ``opened``: how many calls gRPC holds in all, or None when it does not say.
    """

    def __init__(self, inside_max: int, opened: Callable[[], int | None]) -> None:
        self.inside = 0
        self.waiting = 0
        self.sent_away = 0
        self._inside_max = inside_max
        self._opened = opened
        self._away = 0  # how many more are to be sent away
        self._done = 0  # since the last look
        self._looked_s = 0.0
        self._per_second = 0.0
        self._retry_ms = RETRY_HINT_OVERLOADED_MS
        self._looking = False
        self._every_other = False

    def enter(self) -> None:
        """A unary call comes in. Raises CallFailed OVERLOADED when it is sent away; either way it must ``leave``."""
        self.inside += 1
        if not self._looking:
            self._begin_looking()
        if self._away > 0:
            self._every_other = not self._every_other  # the others come in: work goes on
            if self._every_other:
                self._away -= 1
                self._turn_away("too many calls wait before this gateway")
        if self.inside > self._inside_max:
            self._turn_away("too many calls are under way in this gateway")

    def leave(self) -> None:
        """A unary call ends."""
        self.inside -= 1
        self._done += 1

    def _turn_away(self, why: str) -> None:
        self.sent_away += 1
        raise CallFailed(ErrorReason.OVERLOADED, why, retry_after_ms=self._retry_ms)

    def _begin_looking(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = True
        self._looked_s = loop.time()
        loop.call_later(ENTRANCE_LOOK_MS / 1000, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self.look(now_s - self._looked_s)
        self._looked_s = now_s
        if self.inside or self.waiting or self._away:
            loop.call_later(ENTRANCE_LOOK_MS / 1000, self._look)
        else:
            self._looking = False

    def look(self, passed_s: float) -> None:
        """Count, and decide how many are to be sent away until the next look."""
        done, self._done = self._done, 0
        rate = done / passed_s if passed_s > 0 else 0.0
        self._per_second = rate if rate > self._per_second else 0.7 * self._per_second + 0.3 * rate
        opened = self._opened()
        self.waiting = 0 if opened is None else max(0, opened - self.inside)
        room = max(WAITING_CALLS_MIN, int(self._per_second * WAITING_MS_MAX / 1000))
        if self.waiting <= room:
            self._away, self._retry_ms = 0, RETRY_HINT_OVERLOADED_MS
            return
        self._away = self.waiting - int(room * SETTLED)
        # They come again in such a time that sending them away once more costs a small part of what is done
        per_second = max(1.0, self._per_second * AWAY_SHARE)
        retry_ms = int(self._away / per_second * 1000)
        self._retry_ms = min(AWAY_MS_MAX, max(RETRY_HINT_OVERLOADED_MS, retry_ms // 100 * 100))


class ServerCalls:
    """How many calls gRPC holds for one of this process's servers: begun, and neither succeeded nor failed."""

    def __init__(self) -> None:
        """Made before the server; ``found`` tells it that the server exists."""
        self._after_id = max(_server_ids(0), default=0)
        self._server_id: int | None = None

    def found(self) -> None:
        """The server exists now."""
        self._server_id = max(_server_ids(self._after_id + 1), default=None)

    def __call__(self) -> int | None:
        """See the class; None when gRPC does not say."""
        if self._server_id is None:
            return None
        try:
            data = json.loads(cygrpc.channelz_get_server(self._server_id))["server"]["data"]
            started, succeeded, failed = (
                int(data.get(name, 0)) for name in ("callsStarted", "callsSucceeded", "callsFailed")
            )
        except (ValueError, KeyError, TypeError):
            return None
        return started - succeeded - failed


def _server_ids(start: int) -> list[int]:
    """The numbers of this process's servers from ``start`` on, as far as gRPC says them."""
    found: list[int] = []
    try:
        while True:
            page = json.loads(cygrpc.channelz_get_servers(start))
            found += [int(one["ref"]["serverId"]) for one in page.get("server", [])]
            if page.get("end", True) or not found:
                return found
            start = found[-1] + 1
    except (ValueError, KeyError, TypeError):
        return found
