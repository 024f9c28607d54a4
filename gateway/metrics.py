"""What a gateway counts, in a registry of its own (several gateways may live in one process, as in tests).

Names are the contract's. Never a SKU, an id or a message as a label: labels come from closed sets, and from the
channels, sources and warehouses of the settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_OTHER_SOURCE = "other"  # events of sources that the settings do not name: callers must not be able to make labels


class Metrics:
    """Counters of one gateway. The children that hot paths use are looked up once and kept."""

    def __init__(
        self,
        *,
        name: str,
        version: str,
        build: str,
        sources: frozenset[str],
        warehouses: frozenset[str] = frozenset(),
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "stockade_decisions", "Commands decided, by verb and outcome, as answered to callers", ["verb", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self._rpcs = Histogram(
            "stockade_rpc_duration_seconds", "Time in the handler, by method and status code", ["method", "code"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._events = Counter(
            "stockade_events", "Warehouse events answered, by source and outcome", ["source", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self._received = Counter(
            "stockade_events_received",
            "Warehouse events that came in, by source; as many as are answered, by stockade_events_total",
            ["source"], registry=self.registry,
        )  # fmt: skip
        self._feed_age = Gauge(
            "stockade_feed_age_seconds",
            "Age of the newest event this gateway took, by when it occurred; of several gateways the least is true",
            ["source", "warehouse"], registry=self.registry,
        )  # fmt: skip
        self._pending = Gauge(
            "stockade_gateway_pending_lines", "Lines that wait in the gateway for a shard host", registry=self.registry
        )
        self._links = Gauge(
            "stockade_gateway_links", "Shard hosts that the gateway is connected to", registry=self.registry
        )
        self._retried = Gauge(
            "stockade_gateway_retried_items", "Items sent again since the gateway started", registry=self.registry
        )
        self._streams = Gauge(
            "stockade_gateway_streams", "Streaming calls under way, by method", ["method"], registry=self.registry
        )
        info = Info("stockade_build", "What is running", registry=self.registry)
        info.info({"version": version, "build": build, "part": "gateway", "name": name})
        self._sources = sources
        self._warehouses = warehouses
        self._wall_s = wall_s
        self._newest_s: dict[tuple[str, str], int] = {}
        self._decision_children: dict[tuple[str, str], Counter] = {}
        self._rpc_children: dict[tuple[str, str], Histogram] = {}
        self._event_children: dict[tuple[str, str], Counter] = {}

    def decided(self, verb: str, outcome: str, count: int = 1) -> None:
        """``count`` commands of one verb ended so: ``granted``, ``done``, a refusal's or an error's name."""
        child = self._decision_children.get((verb, outcome))
        if child is None:
            child = self._decision_children[verb, outcome] = self._decisions.labels(verb, outcome)
        child.inc(count)

    def answered(self, method: str, code: str, seconds: float) -> None:
        """One RPC ended."""
        child = self._rpc_children.get((method, code))
        if child is None:
            child = self._rpc_children[method, code] = self._rpcs.labels(method, code)
        child.observe(seconds)

    def streaming(self, method: str, count: int) -> None:
        """A stream began (1) or ended (-1)."""
        self._streams.labels(method).inc(count)

    def ingested(self, source_id: str, outcome: str, count: int = 1) -> None:
        """Warehouse events of one source ended so."""
        source = source_id if source_id in self._sources else _OTHER_SOURCE
        child = self._event_children.get((source, outcome))
        if child is None:
            child = self._event_children[source, outcome] = self._events.labels(source, outcome)
        child.inc(count)

    def received(self, source_id: str, count: int) -> None:
        """Warehouse events of one source came in; each is going to be answered."""
        self._received.labels(source_id if source_id in self._sources else _OTHER_SOURCE).inc(count)

    def heard(self, source_id: str, warehouse_id: str, occur_time_s: int) -> None:
        """An event of this time was applied, or had been before."""
        if warehouse_id in self._warehouses:
            feed = (source_id if source_id in self._sources else _OTHER_SOURCE, warehouse_id)
            if occur_time_s > self._newest_s.get(feed, 0):
                self._newest_s[feed] = occur_time_s

    def watch(
        self, *, pending_lines: Callable[[], float], links: Callable[[], float], retried: Callable[[], float]
    ) -> None:
        """Where the gauges get their values from when somebody scrapes."""
        self._pending.set_function(pending_lines)
        self._links.set_function(links)
        self._retried.set_function(retried)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        now_s = self._wall_s()
        for feed, newest_s in self._newest_s.items():
            self._feed_age.labels(*feed).set(max(0.0, now_s - newest_s))
        return generate_latest(self.registry)
