"""How hosts and gateways reach the directory actor: in threads of their own, because a call to a lost Ray may hang.

Nothing here is in the path of a request. A directory that does not answer, or a Ray that is gone, costs nothing but
news.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.shard.directory import HostRoute, Routes

__all__ = ["Registrar", "RemoteDirectory"]

POLL_WITHIN_S = 20.0  # the actor answers a long poll after 10 s at the latest
REGISTER_WITHIN_S = 2.0
REGISTER_INTERVAL_S = 1.0  # a restarted directory knows everything again after this

log = logging.getLogger(__name__)


class RemoteDirectory:
    """The directory port for a gateway. ``actor``: the directory's Ray handle.

    ``known``: the map as the supervisor knows it, given out first, so that a gateway that is started while a host
    serves waits for no Ray call (which takes seconds on a busy machine).
    """

    def __init__(self, actor: Any, known: Routes | None) -> None:
        self._actor = actor
        self._known = known
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="stockade-directory")

    async def routes(self, after_version: int) -> Routes:
        """The map once it is news; any exception of Ray's when the directory is away."""
        if self._known is not None:
            known, self._known = self._known, None
            return known
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, after_version)

    def _ask(self, after_version: int) -> Routes:
        import ray

        routes: Routes = ray.get(self._actor.routes.remote(after_version), timeout=POLL_WITHIN_S)
        return routes

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Registrar:
    """Tells the directory about a host again and again until closed, so that a directory may forget everything."""

    def __init__(self, actor: Any, host: HostRoute, cluster_id: str, timeline: str, shard_count: int) -> None:
        self._actor = actor
        self._what = (tuple(host), cluster_id, timeline, shard_count)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tell_for_ever, name="stockade-registrar", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _tell_for_ever(self) -> None:
        import ray

        complained = False
        while not self._closed.is_set():
            try:
                ray.get(self._actor.register.remote(*self._what), timeout=REGISTER_WITHIN_S)
                complained = False
            except Exception as error:  # whatever Ray raises: the directory is away
                if not complained:
                    log.warning("the directory does not answer: %r", error)
                complained = True
            self._closed.wait(REGISTER_INTERVAL_S)
